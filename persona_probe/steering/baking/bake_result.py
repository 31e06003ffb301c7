"""Weights on disk that contain an intervention."""

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
        tokens: number of positions that were compared.
        same_text: whether greedy answers were the same (always so in float32; half precision may decide ties
            differently).
        effect: what the intervention does: largest difference of a logit from the unsteered model's.
        tolerance: largest difference that is allowed; NaN in half precision, where the logits' norms are compared.
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
        """One row per check: ``check``, ``value``, and the number of ``tokens`` that it was made on."""
        checks = {
            "difference from the hooked model": self.max_logit_difference,
            "effect of the intervention": self.effect,
            "tolerance": self.tolerance,
            "same greedy answers": float(self.same_text),
        }
        return pd.DataFrame({"check": list(checks), "value": list(checks.values()), "tokens": self.tokens})

    def plot(self) -> go.Figure:
        """How far the weights are from the hooked model, compared with what the intervention does."""
        from persona_probe.figures.baked import baked

        return baked(self.to_frame())

    def headline(self) -> str:
        """Where the weights are, and how exact."""
        return (
            f"{self.form} of {self.architecture} in {self.folder}: logits differ from the hooked model's by at most "
            f"{self.max_logit_difference:.2g} over {self.tokens} tokens (the intervention changes them by up to "
            f"{self.effect:.2g}); greedy answers are {'the same' if self.same_text else 'different'}"
        )

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the folder to the Hugging Face Hub, and return its address there.

        Everything in ``README.md`` and ``persona_probe.json`` is published with it: read them first.

        Args:
            repo_id: ``owner/name``; created if it does not exist.
            private: whether a new repository is private.
            token: by default the one that ``hf auth login`` stored.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(
            api.upload_folder(repo_id=repo_id, folder_path=self.folder, commit_message="Written by persona-probe")
        )
