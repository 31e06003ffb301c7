"""Many latent edits asked the same questions: each an intervention of its own rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.latents.sae import Sae
from persona_probe.latents.steering import EditLatents, LatentEdit
from persona_probe.steering.ask import Asking

_CELLS = 2**25
"""Rows x latents of the edits' matrices in one call of generate: 128 MiB each."""


def ask_edits(
    asking: Asking, sae: Sae, scope: str, questions: Sequence[Dialogue], edits: Sequence[LatentEdit | None]
) -> list[pd.DataFrame]:
    """Ask all ``questions`` under each edit (None: unsteered).

    Returns:
        A judged table for each edit, as `Asking.ask`.
    """
    interventions = [None if edit is None else EditLatents(sae, edit, scope=scope) for edit in edits]
    largest = max(1 if edit is None else len(edit.latents) for edit in edits)
    return asking.ask(questions, interventions, at_once=max(1, math.isqrt(_CELLS // (len(questions) * largest))))
