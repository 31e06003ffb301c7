"""Persona vectors: ``{trait}_response_avg_diff.pt`` and its two siblings.

Chen et al. 2025, "Persona vectors", arXiv:2507.21509; repository safety-research/persona_vectors. ``generate_vec.py``
stacks one mean difference for each of Hugging Face's ``hidden_states``: ``(n_layers + 1, d_model)``, float32. Row 0 is
the embedding, row i the output of block i-1, and the last row the output of the last block *after the final norm*. The
paper's layer L is row L: ``eval/eval_persona.py`` adds ``vector[L]`` at the output of block ``L-1``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from persona_probe.directions.formats.assembly import Rows, array_of
from persona_probe.models.model import Model

ABOUT = {
    "format": "persona-vectors",
    "repository": "safety-research/persona_vectors",
    "paper": "Chen et al. 2025, arXiv:2507.21509",
}
_SPANS = {"response_avg": "response", "prompt_avg": "prompt", "prompt_last": "last_prompt_token"}


def matches(content: Any, _file: Path, model: Model) -> bool:
    """Whether it has one row for each hidden state."""
    return isinstance(content, torch.Tensor) and tuple(content.shape) == (model.n_layers + 1, model.d_model)


def read(content: Any, file: Path, model: Model) -> Rows:
    """The persona vector; row l+1 is our layer l, and the embedding and the normed last row are left out.

    Raises:
        PersonaProbeError: for another shape.
    """
    n = model.n_layers
    axes = "(layers + 1, d_model), the embedding first"
    array = array_of(content, file, "a persona vector", (n + 1, model.d_model), axes)
    spans = [theirs for name, theirs in _SPANS.items() if file.stem.endswith(f"_{name}_diff")]
    return Rows(
        array[1:n],
        tuple(range(n - 1)),
        "row i is Hugging Face's hidden_states[i]: row l+1 is our layer l, the paper's layer l+1",
        (
            "row 0: the embedding, no layer's output",
            f"row {n}: the last block's output after the final norm, which is not our layer {n - 1}",
        ),
        {"span_by_file_name": spans[0]} if spans else {},
    )
