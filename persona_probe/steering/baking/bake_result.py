"""Weights with an intervention inside, as they lie on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Baked(Result):
    """What `bake` wrote, after it was read back and compared with the hooked model.

    Attributes:
        folder: the model (or adapter), its tokenizer and chat template, ``README.md`` and ``persona_probe.json``.
        form: ``"weights"`` or ``"lora"``.
        architecture: the class that reads it (of an adapter: the base's).
        max_logit_difference: largest difference of a logit from the hooked model's.
        tokens: over how many positions.
        same_text: whether greedy answers were the same (in float32 they are; half precision may break ties otherwise).
        effect: what the intervention does: largest difference of a logit from the unsteered model's.
        tolerance: largest difference that is let pass; NaN in half precision, where the logits' norms are compared.
    """

    folder: Path
    form: str
    architecture: str
    max_logit_difference: float
    tokens: int
    same_text: bool
    effect: float = math.nan
    tolerance: float = math.nan

    def to_frame(self) -> pd.DataFrame:
        """One row a check: ``check``, ``value``, and over how many ``tokens`` it was made."""
        checks = {
            "difference from the hooked model": self.max_logit_difference,
            "effect of the intervention": self.effect,
            "tolerance": self.tolerance,
            "same greedy answers": float(self.same_text),
        }
        return pd.DataFrame({"check": list(checks), "value": list(checks.values()), "tokens": self.tokens})

    def plot(self) -> go.Figure:
        """How far the weights are from the hooked model, beside what the intervention does."""
        from persona_probe.figures.baked import baked

        return baked(self.to_frame())

    def headline(self) -> str:
        """Where it is, and how exact."""
        return (
            f"{self.form} of {self.architecture} in {self.folder}: logits differ from the hooked model's by at most "
            f"{self.max_logit_difference:.2g} over {self.tokens} tokens (the intervention changes them by up to "
            f"{self.effect:.2g}); greedy answers are {'the same' if self.same_text else 'others'}"
        )

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the folder to the Hugging Face Hub.

        Everything in ``README.md`` and ``persona_probe.json`` is published with it: look through them first.

        Args:
            repo_id: ``owner/name``; made if there is none.
            private: whether a new repository is private.
            token: default the one that ``hf auth login`` stored.

        Returns:
            Where it is now.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo_id, folder_path=self.folder, commit_message="Written by persona-probe")
        return str(done)
