"""Loading a model from a Hub id or a local folder."""

from __future__ import annotations

import datetime
import importlib.util
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.fingerprint import fingerprint
from persona_probe.models.loading.adapters import adapter_base, is_adapter, put_adapter
from persona_probe.models.loading.gguf_header import is_gguf
from persona_probe.models.loading.gguf_model import note_origin, unpacking
from persona_probe.models.loading.merging import merge
from persona_probe.models.loading.sources import explained, pretrained
from persona_probe.models.loading.spec import LoadOptions, ModelSpec, Quantize, check_options, given_options
from persona_probe.models.loading.templates import load_template
from persona_probe.models.loading.vocabulary import on_embedding
from persona_probe.models.model import Model
from persona_probe.models.stream.guards import check_hooks

_log = logging.getLogger(__name__)
_COMPUTED = re.compile(
    r"(rotary\w*|rope)\.(\w*inv_freq|cos_cached|sin_cached)$|embed_positions\.weights$|(attn|attention)\.(bias|masked_bias|causal_mask)$|"
    r"(^|\.)(position_ids|num_batches_tracked)$"
)
"""Tensors in old weight files that models compute by themselves today: rotary frequencies, sines, causal masks."""
_BESIDE_TEXT = frozenset(
    [
        "vision_tower",
        "vision_model",
        "vision_embed_tokens",
        "visual",
        "multi_modal_projector",
        "mm_projector",
        "audio_tower",
        "embed_vision",
        "embed_audio",
        "v_head",
        "mtp",
        "mtp_layers",
    ]
)
"""Parts that text does not pass: towers for images and sound, value heads, heads that predict further tokens."""


def load(
    path_or_id: str | Path,
    *,
    adapter: str | Path | None = None,
    adapter_revision: str | None = None,
    merge: bool = False,
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: Quantize | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: str | Path | None = None,
    chat_template: str | Path | None = None,
    thinking: bool | None = None,
    today: datetime.date | None = None,
    template_variables: Mapping[str, Any] | None = None,
) -> Model:
    """A loaded causal language model, on which our hooks were checked.

    Args:
        path_or_id: a local folder or Hub id of a model, or of a LoRA adapter that names its base; a GGUF file, whose
            weights are unpacked into an ordinary model; or ``smollm2-135m-instruct``, the real model that
            ``persona-probe real fetch`` puts into the cache.
        adapter: a LoRA (rsLoRA, DoRA) adapter to put on it: folder or Hub id. Its own tokenizer and chat template, if
            its folder has any, are used.
        adapter_revision: branch, tag or commit of the adapter's Hub repository.
        merge: merge the adapter into the weights instead of keeping it live (faster, but it cannot be removed again).
        device: where to put the model; by default on a GPU if there is one.
        device_map: instead of ``device``, spread it over devices as accelerate does: ``"auto"``, or a map by module.
        dtype: ``torch.dtype`` or its name; by default float32 on a CPU, and as stored on a GPU.
        quantize: ``"4bit"`` (NF4) or ``"8bit"`` weights, by bitsandbytes.
        revision: branch, tag or commit of the Hub repository that ``path_or_id`` names.
        trust_remote_code: run the Python code in the repository. Only for repositories whose code you have read.
        tokenizer: folder or Hub id of a tokenizer, instead of the model's or adapter's own.
        chat_template: Jinja text, or a file with it, instead of the tokenizer's own (base models have none).
        thinking: for templates with such a switch (Qwen3): let the model reason before it answers. Off by default.
        today: the date for templates that write today's date; by default the day of loading.
        template_variables: further variables for the chat template.

    Raises:
        PersonaProbeError: if nothing loadable is there, weight files hold other tensors than
            the model or the adapter's config, the adapter belongs to another base or computes something else when it
            is merged, the architecture is unknown to TransformerLens, or the hooks disagree with Hugging Face's hidden
            states.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat", device="cpu")
    >>> model.n_layers, model.d_model
    (5, 160)
    >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
    >>> (answered,) = model.generate([question], pp.Sampling(max_new_tokens=5, temperature=0))
    >>> answered.answer
    'The fever is no mystery'
    """
    options = given_options(
        device=device,
        device_map=device_map,
        dtype=dtype,
        quantize=quantize,
        revision=revision,
        trust_remote_code=trust_remote_code,
        tokenizer=tokenizer,
        chat_template=chat_template,
        thinking=thinking,
        today=today,
        template_variables=template_variables,
    )
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
    check_types(path_or_id=(path_or_id, PATH), adapter=(adapter, PATH, None), merge=(merge, bool))
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
    hf = read_weights(spec.source, options, place)
    if options.get("device_map") is None and not options.get("quantize"):
        with explained(spec.source, options):
            hf.to(place)  # type: ignore[arg-type]
    if spec.merge and getattr(hf, "is_quantized", False):
        raise PersonaProbeError(f"{spec.source}: its weights are quantised, and merging into them loses precision")
    carrying: Any = hf
    ancestors = set()
    if spec.adapter is not None:
        ancestors.add(fingerprint(hf))
        carrying = put_adapter(hf, spec.adapter, revision=spec.adapter_revision)
    model = Model(carrying, on_embedding(template, carrying), spec.name, spec)
    if spec.merge:
        model = Model(merge(model), model.template, spec.name, spec)
    model.ancestors |= ancestors
    check_hooks(model)
    for remark in model.template.remarks():
        _log.log(logging.WARNING if remark in model.template.notes else logging.INFO, "%s: %s", model.name, remark)
    return model


def target_device(options: LoadOptions) -> torch.device:
    """The device that input ids will go to: the given one, else a GPU if there is one."""
    given = options.get("device")
    try:
        return torch.device(given if given is not None else "cuda" if torch.cuda.is_available() else "cpu")
    except (RuntimeError, TypeError) as error:
        raise PersonaProbeError(f"device is {given!r}; give for example 'cpu', 'cuda' or 'cuda:1'") from error


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | str:
    """The dtype to load in: the given one, else float32 on a CPU, as stored on a GPU.

    On a CPU float32 is for exactness (hooks are checked within 1e-4 instead of 3e-2). Which dtype is faster depends on
    the processor: one that computes in bfloat16 (AVX512-BF16, AMX) is faster in it.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    if not isinstance(named, torch.dtype):
        raise PersonaProbeError(f"unknown dtype {dtype!r}: give for example 'float32', 'bfloat16', 'float16' or 'auto'")
    return named


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


def read_weights(source: str, options: LoadOptions, place: torch.device) -> PreTrainedModel:
    """The model in a folder, Hub repository or GGUF file, without adapters; only parts with a device map are placed.

    Raises:
        PersonaProbeError: as `load`.
    """
    dtype = resolve_dtype(options.get("dtype"), place)
    if options.get("quantize") == "8bit" and options.get("dtype") is None:
        dtype = torch.float16  # the only dtype in which bitsandbytes' 8-bit kernels compute
    quantization = _quantization(options.get("quantize"), dtype)
    if packed := is_gguf(source):
        if quantization is not None:
            raise PersonaProbeError(
                f"{source}: the weights of a GGUF file are unpacked, and quantize={options.get('quantize')!r} would "
                "round them a second time; leave out quantize="
            )
        further = unpacking(Path(source))
    else:
        further = {"quantization_config": quantization}
    with explained(source, options), pretrained(source, options) as (folder, arguments):
        config = AutoConfig.from_pretrained(folder, **arguments)
        _within_embedding(config)
        loaded: Any = auto_class(config).from_pretrained(
            folder,
            **arguments,
            **further,
            config=config,
            dtype=dtype,
            device_map=options.get("device_map") or ({"": place} if quantization is not None else None),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
        )
    hf, report = loaded
    if packed:
        note_origin(hf, Path(source))
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (Path(source) / whole).is_file() and (Path(source) / f"{whole}.index.json").is_file():
            _log.warning("%s: holds %s and, in several files, other weights; the first is used", source, whole)
    _check_weights(source, hf, report)
    return hf  # type: ignore[no-any-return]


def _within_embedding(config: PretrainedConfig) -> None:
    """Forget which token pads if it has no embedding: torch would not make such an embedding, and we mask padding."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        pad, rows = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
            part.pad_token_id = None


def _check_weights(source: str, hf: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Raise if the weight files and the model do not hold the same tensors."""
    if missing := sorted(report["missing_keys"]):
        raise PersonaProbeError(
            f"{source}: its weight files lack {len(missing)} of the model's parameters (first {missing[0]!r}), which "
            "would be filled with random numbers; the folder is incomplete or of another architecture"
        )
    if mismatched := sorted(report["mismatched_keys"], key=lambda one: str(one[0])):
        name, in_file, in_model = mismatched[0]
        raise PersonaProbeError(
            f"{source}: {len(mismatched)} tensors of its weight files have other shapes than the model: {name!r} has "
            f"{tuple(in_file)} in the file and {tuple(in_model)} in a {type(hf).__name__} by its config.json"
        )
    towers = {name.split(".")[-1] for name, _ in hf.named_modules()}
    unexpected = [
        key
        for key in sorted(report["unexpected_keys"])
        if not _COMPUTED.search(key) and not any(part in _BESIDE_TEXT - towers for part in key.split("."))
    ]
    if unexpected:
        raise PersonaProbeError(
            f"{source}: {len(unexpected)} tensors of its weight files have no place in a {type(hf).__name__} (first "
            f"{unexpected[0]!r}), and the model would compute something else without them; its config.json is that of "
            "another model (architecture, number of layers, biases)"
        )
