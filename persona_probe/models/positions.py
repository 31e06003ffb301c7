"""How many tokens a model reads, and which texts can share a batch, from its config."""

from __future__ import annotations

from transformers import PretrainedConfig


def max_positions(config: PretrainedConfig) -> int | None:
    """The greatest number of tokens that a model reads, with what it writes; None if its config states no limit.

    Rotary embeddings that are stretched (YaRN, ``linear``, ...) read farther than the positions of the training.
    """
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings", most)
    return max(most, int(factor * original)) if isinstance(factor, int | float) and original else most


def longest_alike(config: PretrainedConfig) -> int | None:
    """The length up to which dialogues can share a batch without changing each other's positions; None if all can.

    Long-context variants of RoPE (Phi-3's ``longrope``, ``dynamic``) choose their frequencies by the longest row of the
    batch.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("longrope", "dynamic"):
        return None
    return int(rope.get("original_max_position_embeddings") or text.max_position_embeddings)
