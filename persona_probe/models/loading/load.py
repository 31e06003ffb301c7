"""Loading a model from a Hub id or a local folder."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.hub import cached_file

from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError
from persona_probe.models.fingerprint import fingerprint
from persona_probe.models.loading.adapters import adapter_base, is_adapter, put_adapter
from persona_probe.models.loading.spec import LoadOptions, ModelSpec, check_options
from persona_probe.models.model import Model
from persona_probe.models.quiet import without_transformers_bars
from persona_probe.models.stream.guards import check_hooks

_log = logging.getLogger(__name__)
_SAMPLED_TOKENS = 400


def load(
    path_or_id: str | Path,
    *,
    adapter: str | Path | None = None,
    adapter_revision: str | None = None,
    merge: bool = False,
    **options: Unpack[LoadOptions],
) -> Model:
    """A loaded causal language model, on which our hooks were checked.

    Args:
        path_or_id: a local folder or Hub id of a model, or of a LoRA adapter that names its base.
        adapter: a LoRA (rsLoRA, DoRA) adapter to put on it: folder or Hub id.
        adapter_revision: branch, tag or commit of the adapter's Hub repository.
        merge: merge the adapter into the weights instead of keeping it live (faster, but it cannot be removed again).
        device: where to put the model; by default on a GPU if there is one.
        device_map: instead of ``device``, spread it over devices as accelerate does: ``"auto"``, or a map by module.
        dtype: ``torch.dtype`` or its name; by default float32 on a CPU, and as stored on a GPU.
        quantize: ``"4bit"`` (NF4) or ``"8bit"`` weights, by bitsandbytes.
        revision: branch, tag or commit of the Hub repository that ``path_or_id`` names.
        trust_remote_code: run the Python code in the repository. Only for repositories whose code you have read.
        chat_template: Jinja text, or a file with it, instead of the tokenizer's own (base models have none).
        thinking: for templates with such a switch (Qwen3): let the model reason before it answers. Off by default.
        today: the date for templates that write today's date; by default the day of loading.
        template_variables: further variables for the chat template.

    Raises:
        PersonaProbeError: for an unknown option; if nothing loadable is there, the adapter belongs to another base,
            the architecture is unknown to TransformerLens, or the hooks disagree with Hugging Face's hidden states.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat", device="cpu")
    >>> model.n_layers, model.d_model
    (5, 160)
    >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
    >>> (answered,) = model.generate([question], pp.Sampling(max_new_tokens=5, temperature=0))
    >>> answered.answer
    'The fever is no mystery'
    """
    return load_spec(
        specify(path_or_id, adapter=adapter, adapter_revision=adapter_revision, merge=merge, options=options)
    )


def specify(
    path_or_id: str | Path,
    *,
    adapter: str | Path | None = None,
    adapter_revision: str | None = None,
    merge: bool = False,
    options: LoadOptions,
) -> ModelSpec:
    """What `load` would load: a full model, or an adapter and the base that it names; no weights are read.

    Raises:
        PersonaProbeError: for options that are unknown or exclude each other, or an adapter that names no base.
    """
    check_options(options)
    source, revision = str(path_or_id), options.get("revision")
    if adapter is None and is_adapter(source, revision):
        adapter, adapter_revision = source, revision
        source = adapter_base(source, revision)
        # The revision that was given is the adapter's; its base is taken as it stands.
        options = options.copy()
        options["revision"] = None
    if options.get("device") is not None and options.get("device_map") is not None:
        raise PersonaProbeError("load: give device= (one place) or device_map= (spread over several), not both")
    if merge and adapter is None:
        raise PersonaProbeError(f"{path_or_id}: merge=True, but there is no adapter to merge; give adapter=")
    if merge and options.get("quantize"):
        raise PersonaProbeError("load: merging into quantised weights loses precision; leave out merge= or quantize=")
    return ModelSpec(source, None if adapter is None else str(adapter), adapter_revision, merge, options)


def load_spec(spec: ModelSpec) -> Model:
    """The model that ``spec`` names; see `load`."""
    options = spec.options
    place = target_device(options)
    template = load_template(spec)
    hf = _read(spec.source, options, place)
    if options.get("device_map") is None and not options.get("quantize"):
        with _explained(spec.source, options):
            hf.to(place)  # type: ignore[arg-type]
    carrying: Any = hf
    ancestors = set()
    if spec.adapter is not None:
        ancestors.add(fingerprint(hf))
        carrying = put_adapter(hf, spec.adapter, revision=spec.adapter_revision)
        if spec.merge:
            carrying = carrying.merge_and_unload()
    model = Model(carrying, template, spec.name, spec)
    model.ancestors |= ancestors
    check_hooks(model)
    for remark in template.remarks():
        _log.info("%s: %s", model.name, remark)
    return model


def load_template(spec: ModelSpec) -> ChatTemplate:
    """The chat template, with its tokenizer, of the model that ``spec`` names; no weights are read.

    Raises:
        PersonaProbeError: if there is no tokenizer, or the template has no switch that was asked for.
    """
    check_source(spec.source)
    options = spec.options
    with _explained(spec.source, options):
        tokenizer = _tokenizer(spec.source, hub_arguments(options))
    given = options.get("chat_template")
    if given is not None:
        text = str(given)
        if isinstance(given, Path) or ("{" not in text and Path(text).suffix in (".jinja", ".jinja2", ".j2", ".txt")):
            file = Path(text)
            if not file.is_file():
                raise PersonaProbeError(f"chat_template: there is no file {text!r}; give Jinja text or a file with it")
            text = file.read_text(encoding="utf-8")
        tokenizer.chat_template = text
    return ChatTemplate(
        tokenizer,
        thinking=options.get("thinking"),
        today=options.get("today"),
        variables=options.get("template_variables"),
    )


def target_device(options: LoadOptions) -> torch.device:
    """The device that input ids will go to: the given one, else a GPU if there is one."""
    given = options.get("device")
    return torch.device(given if given is not None else "cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | str:
    """The dtype to load in: the given one, else float32 on a CPU (half precision is slow there), as stored on a GPU."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype):
        raise PersonaProbeError(f"unknown dtype {dtype!r}: give for example 'float32', 'bfloat16', 'float16' or 'auto'")
    return named


def check_source(source: str) -> None:
    """Raise if ``source`` is neither a model folder nor has the form of a Hub id; the message says what is there."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise PersonaProbeError(f"{source}: is not a model folder: it has no config.json (it holds {inside})")
    if folder.is_file():
        raise PersonaProbeError(f"{source}: is a file; give the folder that holds the model's config.json")
    if not folder.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise PersonaProbeError(f"{source}: no such folder, and not a Hub id of the form owner/name")


def _tokenizer(source: str, where: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that the repository's own ``tokenizer.json`` describes.

    For some model types (in 5.23, Qwen2 and related ones) transformers uses the family's tokenizer class whatever the
    files say; that class splits text by other rules, and so silently gives other tokens.
    """
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **where)
    file = cached_file(
        source,
        "tokenizer.json",
        revision=where["revision"],
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None or not loaded.is_fast:
        return loaded
    written = Tokenizer.from_file(str(file))
    every = max(1, written.get_vocab_size() // _SAMPLED_TOKENS)
    sample = written.decode(list(range(0, written.get_vocab_size(), every)))
    in_use, described = (
        backend.encode(sample, add_special_tokens=False).ids for backend in (loaded.backend_tokenizer, written)
    )
    if in_use == described:
        return loaded
    _log.warning(
        "%s: transformers' %s splits text differently from the repository's tokenizer.json, which is used instead",
        source,
        type(loaded).__name__,
    )
    return PreTrainedTokenizerFast.from_pretrained(source, revision=where["revision"])  # type: ignore[no-any-return]


def auto_class(config: PretrainedConfig) -> Any:
    """The class that loads models of ``config``; vision-language models (Mistral Small, Qwen-VL) hold a causal one."""
    causal = type(config) in AutoModelForCausalLM._model_mapping or hasattr(config, "auto_map")
    return AutoModelForCausalLM if causal else AutoModelForImageTextToText


def _quantization(quantize: str | None, dtype: torch.dtype | str) -> BitsAndBytesConfig | None:
    if quantize is None:
        return None
    if quantize not in ("4bit", "8bit"):
        raise PersonaProbeError(f"quantize is {quantize!r}; give '4bit', '8bit' or leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PersonaProbeError(
            f"quantize={quantize!r} needs bitsandbytes, which is not installed: pip install 'persona-probe[quantize]'"
        )
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
    )


def hub_arguments(options: LoadOptions) -> dict[str, Any]:
    """The arguments with which everything in the repository is read."""
    return {"revision": options.get("revision"), "trust_remote_code": options.get("trust_remote_code", False)}


@contextlib.contextmanager
def _explained(source: str, options: LoadOptions) -> Iterator[None]:
    """Turn errors of transformers about ``source`` into one line that says what to do."""
    try:
        with without_transformers_bars():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        code = "trust_remote_code" in str(error) and not options.get("trust_remote_code")
        hint = "; it needs its own Python code: read that, then load with trust_remote_code=True" if code else ""
        raise PersonaProbeError(f"{source}: cannot be loaded as a causal language model: {first}{hint}") from error


def _read(source: str, options: LoadOptions, place: torch.device) -> PreTrainedModel:
    dtype = resolve_dtype(options.get("dtype"), place)
    if options.get("quantize") == "8bit" and options.get("dtype") is None:
        dtype = torch.float16  # the only dtype in which bitsandbytes' 8-bit kernels compute
    quantization = _quantization(options.get("quantize"), dtype)
    with _explained(source, options):
        config = AutoConfig.from_pretrained(source, **hub_arguments(options))
        loaded: Any = auto_class(config).from_pretrained(
            source,
            **hub_arguments(options),
            config=config,
            dtype=dtype,
            device_map=options.get("device_map") or ({"": place} if quantization is not None else None),
            quantization_config=quantization,
            output_loading_info=True,
        )
    hf, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise PersonaProbeError(
            f"{source}: its weight files lack {len(missing)} of the model's parameters (first {missing[0]!r}), which "
            "would be filled with random numbers; the folder is incomplete or of another architecture"
        )
    return hf  # type: ignore[no-any-return]
