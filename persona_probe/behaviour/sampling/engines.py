"""How to tell known engines to sample as asked: left alone, they take settings from the model's generation config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEUTRAL: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
"""For each engine, by what it calls itself (``owned_by`` in its list of models), the fields that switch off what is
not asked for. vLLM and SGLang read top-k, repetition penalty and others from the model's ``generation_config.json``
(``--generation-config auto``, ``--sampling-defaults model``); llama.cpp has a top-k of 40 and a min-p of 0.05."""


def neutral_fields(owner: str | None) -> dict[str, Any]:
    """The fields that make an engine sample with temperature and top-p alone; none for one that is not known.

    >>> neutral_fields("llamacpp")["top_k"], neutral_fields("openai")
    (0, {})
    """
    return dict(NEUTRAL.get(owner or "", {}))
