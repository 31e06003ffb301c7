"""LoRA adapters on disk: finding them, comparing them with their base, and putting one or several on a model."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_lora_bias, quiet_peft
from persona_probe.models.stream.guards import check_hooks
from persona_probe.models.twin import is_offloaded, structural_twin

ADAPTER_CONFIG = "adapter_config.json"
_LEAVES_BASE_UNCHANGED = ("gaussian", "eva", "orthogonal")
"""Ways to initialise LoRA that leave the base's weights as they are (in PEFT, pissa, olora, corda and loftq do not)."""


def is_adapter(path: str | Path, revision: str | None = None) -> bool:
    """Whether ``path`` (a local folder or a Hub id) holds a PEFT adapter."""
    return _config_file(path, revision) is not None


def _config_file(path: str | Path, revision: str | None = None) -> Path | None:
    folder = Path(path)
    if folder.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") != 1:
        return folder / ADAPTER_CONFIG if (folder / ADAPTER_CONFIG).is_file() else None
    from transformers.utils.hub import cached_file

    try:
        file = cached_file(
            str(path),
            ADAPTER_CONFIG,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError:
        return None
    return None if file is None else Path(file)


def adapter_base(path: str | Path, revision: str | None = None) -> str:
    """The base model that an adapter names; a relative path may also be relative to the adapter's own folder.

    Raises:
        PersonaProbeError: if the adapter's config is unreadable or names no base.
    """
    file = _config_file(path, revision)
    if file is None:
        raise PersonaProbeError(f"{path}: holds no {ADAPTER_CONFIG}, so it is not an adapter")
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, json.JSONDecodeError) as error:
        raise PersonaProbeError(f"{file}: cannot be read as JSON: {error}") from error
    if not base:
        raise PersonaProbeError(f"{file}: names no base model; load it with pp.load(base, adapter=...)")
    from_adapter = file.parent / base
    relative = str(base).startswith(".") or not Path(base).is_dir()
    return str(from_adapter.resolve()) if relative and from_adapter.is_dir() else str(base)


def check_fits(hf: nn.Module, path: str | Path) -> None:
    """Raise if a local adapter's LoRA matrices do not fit the modules of ``hf``.

    Raises:
        PersonaProbeError: naming the first module that is missing, or whose shape differs, with both shapes.
    """
    weights = Path(path) / "adapter_model.safetensors"
    if not weights.is_file():
        if Path(path).is_dir():
            missing = [name for name in (ADAPTER_CONFIG, weights.name) if not (Path(path) / name).is_file()]
            raise PersonaProbeError(f"{path}: is not an adapter: it has no {' and no '.join(missing)}")
        return
    modules = dict(hf.named_modules())
    with safe_open(str(weights), framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118  (a safetensors handle is not a mapping)
            for part, axis, feature in ((".lora_A.", 1, "in_features"), (".lora_B.", 0, "out_features")):
                if part not in key:
                    continue
                name = key.removeprefix("base_model.model.").split(part)[0]
                if ".experts." in name:
                    continue  # PEFT converts and nests these in its own ways, and reports itself what is missing
                module: Any = modules.get(name)
                shape = tuple(file.get_slice(key).get_shape())
                if module is None:
                    raise PersonaProbeError(
                        f"{path}: the adapter has weights for {name!r}, which this model lacks; "
                        "it was trained on another base"
                    )
                expected = getattr(module, feature, None)
                if expected is not None and shape[axis] != expected:
                    raise PersonaProbeError(
                        f"{path}: the adapter does not fit this base: {name!r} has "
                        f"{feature}={expected}, the adapter's {part.strip('.')} has shape {shape}; "
                        "it was trained on another base"
                    )


def put_adapter(hf: nn.Module, path: str | Path, *, revision: str | None = None) -> nn.Module:
    """The ``PeftModel`` of ``hf`` with the adapter at ``path`` (folder or Hub id), live.

    The modules of ``hf`` are changed; give a structural twin to leave the original as it is.

    Raises:
        PersonaProbeError: if it does not fit, or cannot be read.
    """
    with quiet_peft():  # importing PEFT warns too
        from peft import PeftModel

    if hasattr(hf, "peft_config"):
        raise PersonaProbeError(f"{path}: the model already carries an adapter; load both on the plain base model")
    if is_offloaded(hf):
        # PEFT would dispatch the model again, and thereby write into the base's own weight files.
        raise PersonaProbeError(
            f"{path}: parts of the base model are offloaded to the CPU or disk, where no adapter can be put on them; "
            "load the base with quantize= or a smaller dtype, so that it fits, or merge the adapter into it once, on a "
            "machine with more memory"
        )
    check_fits(hf, path)
    where = str(next(hf.parameters()).device)
    # If all weights are on devices, PEFT has nothing to dispatch, but some maps make it try.
    device_map = vars(hf).pop("hf_device_map", None)
    quiet = quiet_lora_bias if _config_of(path, revision).get("lora_bias") else quiet_peft
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            carrying = PeftModel.from_pretrained(
                hf, str(path), revision=revision, is_trainable=False, torch_device=where
            )
    except (ValueError, RuntimeError, OSError, TypeError, UserWarning) as error:
        first = str(error).strip().splitlines()[0]
        raise PersonaProbeError(f"{path}: the adapter cannot be put on this model: {first}") from error
    finally:
        if device_map is not None:
            hf.hf_device_map = device_map
    if carrying.active_peft_config.is_prompt_learning:
        raise PersonaProbeError(
            f"{path}: is a {carrying.active_peft_config.peft_type.value} adapter, which puts virtual tokens before the "
            "text and so moves every position; adapters that change weights (LoRA, rsLoRA, DoRA) can be used"
        )
    return carrying  # type: ignore[no-any-return]


def _config_of(path: str | Path, revision: str | None) -> dict[str, Any]:
    file = _config_file(path, revision)
    read: dict[str, Any] = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
    return read


def _check_leaves_base_alone(path: str | Path, revision: str | None) -> None:
    """Raise if PEFT would put this adapter on by rewriting the base's weights or biases, which *before* uses."""
    config = _config_of(path, revision)
    start, bias = config.get("init_lora_weights", True), config.get("bias", "none")
    if not (isinstance(start, bool) or start in _LEAVES_BASE_UNCHANGED) or bias != "none":
        what = f"bias={bias!r}" if bias != "none" else f"init_lora_weights={start!r}"
        raise PersonaProbeError(
            f"{path}: was made with {what}, which PEFT puts on by rewriting the base's own weights, so that before and "
            "after cannot share one copy of them; load after by itself, pp.load(base, adapter=...), and pair the "
            "two models, or convert the adapter with PEFT's path_initial_model_for_weight_conversion"
        )


def with_adapter(model: Model, adapter: str | Path, *, revision: str | None = None) -> Model:
    """``model`` with a LoRA adapter, live on a structural twin: the weights are shared, ``model`` is unchanged.

    Call it once for each adapter to have several adapters on one copy of the base's weights.

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
    _check_leaves_base_alone(adapter, revision)
    spec = model.spec and replace(model.spec, adapter=str(adapter), adapter_revision=revision, merge=False)
    carrying = put_adapter(structural_twin(model.hf), adapter, revision=revision)
    tuned = Model(carrying, model.template, str(adapter), spec)
    tuned.descends_from(model)
    check_hooks(tuned)
    return tuned
