"""What SAEs call the place they were trained on, and which layer that is here."""

from __future__ import annotations

import re

from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.layer_convention import LAYER_CONVENTION

_AFTER = re.compile(r"^blocks\.(\d+)\.(?:hook_resid_post|hook_out)$|(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.output)?$")
_BEFORE = re.compile(r"^blocks\.(\d+)\.(?:hook_resid_pre|hook_in)$")


def hook_name(layer: int) -> str:
    """What TransformerLens and SAELens call the output of block ``layer``."""
    return f"blocks.{layer}.hook_resid_post"


def layer_of_hook(name: str) -> int:
    """The layer whose output is read at the hook ``name``.

    ``blocks.{l}.hook_resid_post``, ``blocks.{l}.hook_out`` and Hugging Face module names (``model.layers.{l}``) are the
    output of block ``l``; ``blocks.{l}.hook_resid_pre`` is that of block ``l - 1``.

    Raises:
        PersonaProbeError: for any other place (inside a block, the embedding): only the residual stream between blocks
            is read and steered here.
    """
    if match := _AFTER.search(name):
        return int(match[1] or match[2])
    if (match := _BEFORE.match(name)) and int(match[1]) > 0:
        return int(match[1]) - 1
    raise PersonaProbeError(
        f"the SAE reads {name!r}, which is not a block's output; only SAEs on the residual stream between blocks can "
        f"be used ({LAYER_CONVENTION}); if the name is wrong, say which layer it is with layer="
    )
