"""The config in an SAE's folder: where SAELens does not know a value, it silently takes a default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError

CONFIG = "cfg.json"
_OLD_NAMES = {
    "activation_fn_str": "activation_fn",
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
}
"""Names in configs of SAELens before version 6, and what they are now."""
_TOPK = ("topk", "abstopk")
_FLAGS = ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")
_READ_HERE = ("activation_fn", "activation_fn_kwargs", "architecture", "hook_layer", "metadata")


def config_of_release(release: str, sae_id: str) -> dict[str, Any] | None:
    """The config of an SAE that SAELens has downloaded; None if its repository has none in SAELens' format."""
    from huggingface_hub import try_to_load_from_cache
    from sae_lens.loading.pretrained_saes_directory import get_config_overrides, get_repo_id_and_folder_name

    repository, folder = get_repo_id_and_folder_name(release, sae_id)
    file = try_to_load_from_cache(repository, f"{folder}/{CONFIG}")
    return read_config(Path(file)) | get_config_overrides(release, sae_id) if isinstance(file, str) else None


def read_config(file: Path) -> dict[str, Any]:
    """The content of a config.

    Raises:
        PersonaProbeError: if it is not a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PersonaProbeError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise PersonaProbeError(f"{file}: is not a JSON object")
    return content


def check_config(config: Mapping[str, Any], opened: Any, name: str, *, layer_given: bool) -> dict[str, Any]:
    """Raise if an SAE was not opened as its config says.

    Args:
        config: the content of the ``cfg.json`` next to the weights.
        opened: the config of the SAE that SAELens has made from it.
        name: the name of the SAE, for messages.
        layer_given: the caller says which layer it reads, whatever the config says.

    Returns:
        The entries that nothing was read from (settings of the training, for example), for the card.

    Raises:
        PersonaProbeError: for an activation function that the SAE does not have, a number of latents that is not
            given, a setting that is not true or false, or two layers.
    """
    known = {_OLD_NAMES.get(key, key): value for key, value in config.items()}
    architecture = opened.architecture()
    function = known.get("activation_fn")
    if function not in (None, "relu", architecture) and not (function == "topk" and architecture in _TOPK):
        raise PersonaProbeError(
            f"{name}: its config gives the activation function {function!r}, and SAELens would open it as "
            f"{'ReLU' if architecture == 'standard' else architecture} instead; only relu, topk (with its k) and those "
            "of SAELens' architectures can be opened"
        )
    if architecture in _TOPK and (known.get("activation_fn_kwargs") or {}).get("k", known.get("k")) is None:
        raise PersonaProbeError(f"{name}: is a {architecture} SAE, but its config does not give k, its active latents")
    for flag in _FLAGS:
        if not isinstance(known.get(flag, False), bool):
            raise PersonaProbeError(f"{name}: {flag} is {known[flag]!r} in its config; it must be true or false")
    metadata = known.get("metadata")
    about: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else known
    hook, layer = str(about.get("hook_name")), about.get("hook_layer")
    if not layer_given and layer is not None and hook.startswith("blocks.") and hook.split(".")[1] != str(layer):
        raise PersonaProbeError(
            f"{name}: its config names the hook {hook!r} and hook_layer={layer}; say which layer it reads, with layer="
        )
    if about.get("hook_head_index") is not None:
        raise PersonaProbeError(
            f"{name}: reads attention head {about['hook_head_index']} (hook_head_index), not the residual stream"
        )
    used = {*_READ_HERE, *(field.name for field in fields(opened)), *opened.metadata.keys()}
    return {key: value for key, value in known.items() if key not in used}
