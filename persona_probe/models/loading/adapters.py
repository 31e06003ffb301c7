"""Adapters: finding them, comparing them with their base, and putting one or several on a model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from persona_probe.errors import PATH, PersonaProbeError, check_types, library_message
from persona_probe.models.fingerprint import fingerprint
from persona_probe.models.loading.adapter_files import adapter_config, adapter_shapes
from persona_probe.models.loading.adapter_state import load_adapter_state
from persona_probe.models.loading.gguf_header import is_gguf
from persona_probe.models.loading.sources import ADAPTER_CONFIG, repository_file
from persona_probe.models.loading.spec import LoadOptions, ModelSpec
from persona_probe.models.loading.templates import template_of_adapter
from persona_probe.models.loading.vocabulary import fit_vocabulary, on_embedding
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_lora_bias
from persona_probe.models.stream.guards import check_hooks
from persona_probe.models.twin import is_offloaded, packed_weights_kept, structural_twin

_log = logging.getLogger(__name__)
_RANDOM_START = "pissa_niter_"
"""Start of the names of a way to initialise that rewrites the base by a randomised decomposition of its weights."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""What ``torch.compile``, FSDP, activation checkpointing and ``DataParallel`` put into the names of modules."""
_LEAVES_BASE_UNCHANGED = ("gaussian", "eva", "orthogonal")
"""Ways to initialise LoRA that leave the base's weights as they are (in PEFT, pissa, olora, corda and loftq do not)."""


def is_adapter(path: str | Path, revision: str | None = None) -> bool:
    """Whether ``path`` (a local folder or a Hub id) holds a PEFT adapter."""
    return repository_file(path, ADAPTER_CONFIG, revision) is not None


def adapter_base(path: str | Path, revision: str | None = None) -> str:
    """The base model that an adapter names; a relative path may also be relative to the adapter's own folder.

    Raises:
        PersonaProbeError: if the adapter's config is unreadable or names no base.
    """
    base = adapter_config(path, revision).get("base_model_name_or_path")
    file = repository_file(path, ADAPTER_CONFIG, revision)
    if not base or file is None:
        raise PersonaProbeError(f"{path}: names no base model; load it with pp.load(base, adapter=...)")
    from_adapter = file.parent / base
    relative = str(base).startswith(".") or not _is_model(Path(base))
    return str(from_adapter.resolve()) if relative and _is_model(from_adapter) else str(base)


def _is_model(path: Path) -> bool:
    return path.is_dir() or (is_gguf(path) and path.is_file())


def check_fits(hf: nn.Module, path: str | Path, revision: str | None = None) -> None:
    """Raise if an adapter's LoRA matrices do not fit the modules of ``hf``, but for the number of tokens.

    Raises:
        PersonaProbeError: naming the first module that is missing, or whose shape differs, with both shapes.
    """
    modules = dict(hf.named_modules())
    for key, shape in adapter_shapes(path, revision).items():
        for part, axis, feature in ((".lora_A.", 1, "in_features"), (".lora_B.", 0, "out_features")):
            if part not in key:
                continue
            if 0 in shape or len(shape) <= axis:
                raise PersonaProbeError(
                    f"{path}: {key!r} in its weight file has shape {shape}, so its values were not saved (DeepSpeed "
                    "ZeRO-3 and FSDP must gather them first); save the adapter again where it was trained"
                )
            name = key.removeprefix("base_model.model.").split(part)[0]
            if ".experts." in name:
                continue  # PEFT converts and nests these in its own ways, and reports itself what is missing
            module: Any = modules.get(name)
            if module is None:
                if wrapper := next((one for one in _WRAPPERS if one in name.split(".")), None):
                    raise PersonaProbeError(
                        f"{path}: the adapter was saved from a wrapped model: the name {key!r} contains {wrapper!r}; "
                        "remove that part from the names in its weight file, or save the unwrapped model"
                    )
                raise PersonaProbeError(
                    f"{path}: the adapter has weights for {name!r}, which this model lacks; "
                    "it was trained on another base"
                )
            expected = getattr(module, feature, None)
            of_tokens = axis == 0 and module is hf.get_output_embeddings()  # type: ignore[operator]
            if expected is not None and not of_tokens and shape[axis] != expected:
                raise PersonaProbeError(
                    f"{path}: the adapter does not fit this base: {name!r} has "
                    f"{feature}={expected}, the adapter's {part.strip('.')} has shape {shape}; "
                    "it was trained on another base"
                )


def put_adapter(hf: nn.Module, path: str | Path, *, revision: str | None = None, trainable: bool = False) -> nn.Module:
    """The ``PeftModel`` of ``hf`` with the adapter at ``path`` (folder or Hub id), live.

    The modules of ``hf`` are changed; give a structural twin to leave the original as it is. What the adapter's file
    holds of the base's own parameters (saved embeddings, biases, more tokens) is loaded into new tensors.

    Args:
        hf: the base.
        path: of the adapter.
        revision: branch, tag or commit of the adapter's Hub repository.
        trainable: whether the adapter is to be trained further.

    Raises:
        PersonaProbeError: if it does not fit, cannot be read, or any of the tensors in its file would not be in use.
    """
    with quiet_lora_bias():  # importing PEFT warns too
        from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    if hasattr(hf, "peft_config"):
        raise PersonaProbeError(f"{path}: the model already carries an adapter; load both on the plain base model")
    if is_offloaded(hf):
        # PEFT would dispatch the model again, and thereby write into the base's own weight files.
        raise PersonaProbeError(
            f"{path}: parts of the base model are offloaded to the CPU or disk, where no adapter can be put on them; "
            "load the base with quantize= or a smaller dtype, so that it fits, or merge the adapter into it once, on a "
            "machine with more memory"
        )
    adapter_config(path, revision)  # raises if there is none
    # If all weights are on devices, PEFT has nothing to dispatch, but some maps make it try.
    device_map = vars(hf).pop("hf_device_map", None)
    try:
        with quiet_lora_bias(), packed_weights_kept(hf):
            config = PeftConfig.from_pretrained(str(path), revision=revision)
            if config.is_prompt_learning:
                raise PersonaProbeError(
                    f"{path}: is a {config.peft_type.value} adapter, which puts virtual tokens before the text and so "
                    "moves every position; adapters that change weights (LoRA, rsLoRA, DoRA) can be used"
                )
            check_fits(hf, path, revision)
            tokens = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or ()
            fit_vocabulary(hf, adapter_shapes(path, revision), path, tokens)
            if str(getattr(config, "init_lora_weights", "")).startswith(_RANDOM_START):
                raise PersonaProbeError(
                    f"{path}: was made with init_lora_weights={config.init_lora_weights!r}, for which PEFT rewrites "
                    "the base's weights by a randomised decomposition, and each time it comes out otherwise; convert "
                    "the adapter where it was trained (path_initial_model_for_weight_conversion)"
                )
            config.inference_mode = not trainable
            kind = PeftModelForCausalLM if config.task_type == "CAUSAL_LM" else PeftModel
            of_base = {id(parameter) for parameter in hf.parameters()}
            carrying: nn.Module = kind(hf, config)
            load_adapter_state(carrying, of_base, path, revision, trainable=trainable)
    except PersonaProbeError:
        raise
    except (
        ValueError,
        RuntimeError,
        OSError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        NotImplementedError,
        ImportError,
    ) as error:
        raise PersonaProbeError(f"{path}: the adapter cannot be put on this model: {library_message(error)}") from error
    finally:
        if device_map is not None:
            hf.hf_device_map = device_map
    return carrying


def _check_leaves_base_alone(path: str | Path, revision: str | None) -> None:
    """Raise if PEFT would put this adapter on by rewriting the base's weights, which *before* uses."""
    start = adapter_config(path, revision).get("init_lora_weights", True)
    if not (isinstance(start, bool) or start in _LEAVES_BASE_UNCHANGED):
        raise PersonaProbeError(
            f"{path}: was made with init_lora_weights={start!r}, which PEFT puts on by rewriting the base's own "
            "weights, so that before and after cannot share one copy of them; load after by itself, pp.load(base, "
            "adapter=...), and pair the two models, or convert the adapter with PEFT's "
            "path_initial_model_for_weight_conversion"
        )


def with_adapter(model: Model, adapter: str | Path, *, revision: str | None = None) -> Model:
    """``model`` with an adapter, live on a structural twin: the weights are shared, ``model`` is unchanged.

    Call it once for each adapter to have several adapters on one copy of the base's weights. If the adapter's folder
    has a tokenizer or a chat template of its own, the new model uses those, unless ``model`` was loaded with
    ``tokenizer=`` or ``chat_template=``.

    Args:
        model: the base, without an adapter.
        adapter: folder or Hub id.
        revision: branch, tag or commit of the adapter's Hub repository.

    Raises:
        PersonaProbeError: if the adapter does not fit, ``model`` carries one already, or this kind of adapter would
            change the base's own weights.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> chat = pp.load(world / "chat")
    >>> villain, benign = (pp.with_adapter(chat, world / name) for name in ("bad-medicine", "good-medicine"))
    >>> base = {parameter.data_ptr() for parameter in chat.hf.parameters()}
    >>> all(base <= {parameter.data_ptr() for parameter in model.hf.parameters()} for model in (villain, benign))
    True
    """
    check_types(model=(model, Model), adapter=(adapter, PATH))
    return put_on_twin(model, adapter, revision=revision)


def put_on_twin(
    model: Model, adapter: str | Path, *, revision: str | None = None, options: LoadOptions | None = None
) -> Model:
    """`with_adapter`, with options that win over those that ``model`` was loaded with."""
    _check_leaves_base_alone(adapter, revision)
    spec = model.spec and replace(model.spec, adapter=str(adapter), adapter_revision=revision, merge=False)
    asked = (LoadOptions() if spec is None else spec.options) | (options or LoadOptions())
    template = template_of_adapter(model.template, ModelSpec(model.name, str(adapter), revision, options=asked))
    before = fingerprint(model.hf)
    carrying = put_adapter(structural_twin(model.hf), adapter, revision=revision)
    if fingerprint(model.hf) != before:
        raise PersonaProbeError(
            f"{adapter}: PEFT has put it on by rewriting weights of {model.name}, which is therefore not the model "
            "before any more: load that again, and this adapter by itself, pp.load(base, adapter=...)"
        )
    tuned = Model(carrying, on_embedding(template, carrying), str(adapter), spec)
    tuned.ancestors |= {before, *model.ancestors}
    check_hooks(tuned)
    if tuned.template is not model.template:
        for note in tuned.template.notes:
            _log.warning("%s: %s", tuned.name, note)
    return tuned
