"""What fine-tuning did to the residual stream on the same texts: the activation-difference lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from persona_probe.activations.activations import Activations
from persona_probe.activations.capture import capture_pair
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.pair import ModelPair

_DIALOGUES_AT_ONCE = 64
"""Every token of so many is held at a time, of which only the first are kept."""


def finetuning_shift(
    pair: ModelPair,
    dialogues: Sequence[Dialogue],
    *,
    span: str = "generation",
    first: int | None = None,
    method: str = "mean-difference",
    seed: int = 0,
    progress: bool = False,
) -> Direction:
    """From before to after, on the same texts.

    On dialogues of the kind that was trained on, this is the change of Soligo et al. (2025, "Convergent linear
    representations of emergent misalignment"). On unrelated plain text (`Dialogue.from_text`, ``span="all"``), over the
    ``first`` few tokens, it is the activation-difference lens (Minder et al. 2025, "Narrow finetuning leaves clearly
    readable traces in activation differences"), which needs to know nothing of the training data.

    A shift by itself says "was fine-tuned"; whether it is the trait's, its specificity says (`measure_amplification`).

    Args:
        pair: before and after.
        dialogues: what both read.
        span: which tokens.
        first: only so many tokens at the span's start (5 in the activation-difference lens; the beginning-of-sequence
            token does not count: nothing before it differs, and its norm would drown the rest).
        method: name of the finder.
        seed: of the card's checks.
        progress: show bars.

    Raises:
        PersonaProbeError: for an unknown span, an empty one (naming the dialogue), or ``first`` below 1.
    """
    if first is not None and first < 1:
        raise PersonaProbeError(f"first is {first}; give at least 1, or None for the whole span")
    if first is None:
        before, after = capture_pair(pair, dialogues, span=span, progress=progress)
    else:
        before, after = _first_tokens(pair, dialogues, span, first, progress)
    found = find_direction(after, before, method, name="fine-tuning shift", seed=seed)
    return replace(found, card={**found.card, "recipe": "fine-tuning shift", "first": first})


def _first_tokens(
    pair: ModelPair, dialogues: Sequence[Dialogue], span: str, first: int, progress: bool
) -> tuple[Activations, Activations]:
    """Means over the ``first`` tokens of each dialogue's span."""
    parts: list[tuple[Activations, Activations]] = []
    for start in range(0, len(dialogues), _DIALOGUES_AT_ONCE):
        some = dialogues[start : start + _DIALOGUES_AT_ONCE]
        before, after = capture_pair(pair, some, span=span, reduce="tokens", progress=progress)
        begin = pair.after.tokenizer.bos_token_id
        parts.append((_means(before, first, begin), _means(after, first, begin)))
    before, after = (Activations.concatenate(side) for side in zip(*parts, strict=True))
    return before, after


def _means(tokens: Activations, first: int, begin: int | None) -> Activations:
    counted = tokens.table[(tokens.table["position"] > 0) | (tokens.table["token_id"] != begin)]
    rows = counted.groupby("dialogue", sort=True).head(first)
    by_dialogue = rows.groupby("dialogue", sort=True).indices
    if missing := sorted(set(tokens.table["dialogue"]) - set(by_dialogue)):
        name = tokens.table.loc[tokens.table["dialogue"] == missing[0], "id"].iloc[0]
        raise PersonaProbeError(f"text {name!r}: has no token but the beginning of sequence")
    picked = tokens.values[rows.index.to_numpy()]
    values = np.stack([picked[positions].mean(axis=0) for positions in by_dialogue.values()])
    own = ["position", "token_id", "token", "dialogue"]
    heads = rows.groupby("dialogue", sort=True).head(1).drop(columns=own).reset_index(drop=True)
    lengths = [len(positions) for positions in by_dialogue.values()]
    source = {**tokens.source, "reduce": f"mean of the first {first}"}
    return Activations(values, heads.assign(n_tokens=lengths), tokens.layers, source)
