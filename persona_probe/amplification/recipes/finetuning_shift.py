"""The recipe that reads how fine-tuning changed the residual stream on the same texts: activation differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import OWN_FORMAT
from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair

_DIALOGUES_AT_ONCE = 64
"""How many dialogues are read at a time, with all their tokens, of which only the first are used."""


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
    """The direction from before to after, on the same texts.

    On dialogues, this is the fine-tuning shift of Chen et al. (2025, "Persona vectors", section 4). On unrelated plain
    text (`Dialogue.from_text`, ``span="all"``), over the ``first`` few tokens, it is the activation-difference lens
    (Minder et al. 2025, "Narrow finetuning leaves clearly readable traces in activation differences"), for which
    nothing of the training data has to be known.

    A shift alone only says "was fine-tuned"; its specificity says whether it belongs to the trait
    (`measure_amplification`).

    Args:
        pair: before and after.
        dialogues: the texts that both read.
        span: which tokens are read.
        first: how many tokens at the start of the span are used (5 in the activation-difference lens); default all. The
            beginning-of-sequence token does not count: nothing before it differs, and its norm would hide the rest.
        method: the name of the finder.
        seed: the seed of the card's checks.
        progress: show progress bars.

    Raises:
        PersonaProbeError: for an unknown span, an empty one (the dialogue is named), ``first`` below 1, or models that
            make different tokens of the dialogues.
    """
    check_types(
        pair=(pair, ModelPair),
        dialogues=(dialogues, [Dialogue]),
        first=(first, WHOLE, None),
        method=(method, str),
        seed=(seed, WHOLE),
    )
    if first is not None and first < 1:
        raise PersonaProbeError(f"first is {first}; give at least 1, or None for the whole span")
    if first is None:
        # The control is not needed.
        two = pair if pair.one_at_a_time or pair.control is None else ModelPair(pair.before, pair.after)
        captures = capture(two, dialogues, span=span, progress=progress)
        before, after = captures.before, captures.after
        _check_same_tokens(not after.source.get(OWN_FORMAT))
    else:
        before, after = _first_tokens(pair, dialogues, span, first, progress)
    direction = find_direction(after, before, method, name="fine-tuning shift", seed=seed)
    return replace(direction, card={**direction.card, "recipe": "fine-tuning shift", "first": first})


def _first_tokens(
    pair: ModelPair, dialogues: Sequence[Dialogue], span: str, first: int, progress: bool
) -> tuple[Activations, Activations]:
    """The means over the ``first`` tokens of each dialogue's span; the models read one after the other."""
    before = _read(pair.before, dialogues, span, first, progress)
    after = _read(pair.after, dialogues, span, first, progress)
    _check_same_tokens(list(before.table["tokens"]) == list(after.table["tokens"]))
    return before, after


def _check_same_tokens(same: bool) -> None:
    if not same:
        raise PersonaProbeError(
            "before and after make different tokens from the same texts (another tokenizer or chat template), and the "
            "difference of their activations would hold that too; load both with the same chat_template="
        )


def _read(model: Model, dialogues: Sequence[Dialogue], span: str, first: int, progress: bool) -> Activations:
    parts = []
    for start in range(0, len(dialogues), _DIALOGUES_AT_ONCE):
        some = dialogues[start : start + _DIALOGUES_AT_ONCE]
        tokens = capture(model, some, span, "tokens", progress=progress)
        parts.append(_means(tokens, first, model.tokenizer.bos_token_id))
    return Activations.concatenate(parts)


def _means(tokens: Activations, first: int, begin: int | None) -> Activations:
    counted = tokens.table[(tokens.table["position"] > 0) | (tokens.table["token_id"] != begin)]
    rows = counted.groupby("dialogue", sort=True).head(first)
    by_dialogue = rows.groupby("dialogue", sort=True).indices
    if missing := sorted(set(tokens.table["dialogue"]) - set(by_dialogue)):
        name = tokens.table.loc[tokens.table["dialogue"] == missing[0], "id"].iloc[0]
        raise PersonaProbeError(f"text {name!r}: has no token but the beginning of sequence")
    picked = tokens.values[rows.index.to_numpy()]
    values = np.stack([picked[positions].mean(axis=0) for positions in by_dialogue.values()])
    of_tokens = ["position", "token_id", "token", "dialogue"]
    heads = rows.groupby("dialogue", sort=True).head(1).drop(columns=of_tokens).reset_index(drop=True)
    ids = rows["token_id"].to_numpy()
    texts = [" ".join(map(str, ids[positions])) for positions in by_dialogue.values()]
    lengths = [len(positions) for positions in by_dialogue.values()]
    source = {**tokens.source, "reduce": f"mean of the first {first}"}
    return Activations(values, heads.assign(n_tokens=lengths, tokens=texts), tokens.layers, source)
