"""Where a model's weights came from, as its config says it: a GGUF file that was unpacked, or a Hub repository.

Nothing here imports torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WEIGHTS_FROM = "weights_from"
"""The entry in a model's config that says where its weights came from; it is saved with the config."""


def origin_in_words(origin: Mapping[str, Any]) -> str:
    """One line about the entry `WEIGHTS_FROM`."""
    if "repository" in origin:
        return f"weights of {origin['repository']} at {str(origin.get('revision'))[:12]}"
    tensors = sorted(origin.get("tensors", {}).items(), key=lambda item: -item[1])
    kinds = ", ".join(f"{count} {kind}" for kind, count in tensors)
    verb = "dequantized" if origin.get("dequantized") else "read"
    return f"weights {verb} from {origin.get('file')} ({kinds}; sha256 {str(origin.get('sha256'))[:12]})"
