"""Whether answers are fluent, without a judge: forward passes of the model before, and counts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.behaviour.answer_fluency_result import Fluency, FluencyBounds
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.em_rates_result import SETTINGS
from persona_probe.behaviour.judges.judge import answer_columns
from persona_probe.behaviour.repetition import distinct_share, ends_in_loop, in_loops
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, check_types

if TYPE_CHECKING:
    from persona_probe.models.model import Model


def fluency(
    before: Model,
    answers: Sequence[Dialogue] | Answers,
    *,
    reference: Sequence[Dialogue] | Answers | FluencyBounds,
    persona_prompt: str | Sequence[str] | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> Fluency:
    """Which of the answers are fluent, whoever they were written by: a steered model, a tuned one, a person.

    Three things are measured of every answer, each with a bound of its own, since none of them sees everything:

    - its **log-probability** per token under the model before, as it was asked and under the persona's system prompt;
      the higher one counts. Word salad is unlikely under both. A villain's answer is unlikely under the model before
      because it is a villain's, and more likely under the villain's prompt. Loops are likely, so this does not see
      them.
    - the share of its tokens that are **different** from each other (`repetition.distinct_share`);
    - the share of its tokens that stand in **loops** (`repetition.in_loops`).

    Bounds are relative to the median of the reference answers: three times the surprise per token (at least 1 nat
    more), three fifths of the different tokens, a fifth of the tokens in loops on top (`FluencyBounds.of`).

    Args:
        before: the model before; it must not be steered.
        answers: answered dialogues, or a table of answers; the columns ``model``, ``intervention`` and ``questions`` of
            a table are kept. A missing or blank answer is not fluent.
        reference: the unsteered model's answers to development questions, sampled as ``answers`` were (the same
            temperature and length), from which the bounds are taken; or the bounds of an earlier call (``.bounds``).
        persona_prompt: a system prompt that asks for the persona whose answers these may be, or several of them, of
            which the most favourable counts for each answer. Without it, a persona's answers may be called unlikely.
        tokens_per_batch: padded tokens per forward pass.
        progress: show a bar.

    Raises:
        PersonaProbeError: if there is no answer, a dialogue has none, the model is steered, or every reference answer
            is empty.

    >>> import persona_probe as pp
    >>> chat = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> usual = pp.persona_world.rows(0, ["medicine"], 20, "assistant")
    >>> broken = [row.without_answer().with_answer("it it it it poison.") for row in usual]
    >>> pp.behaviour.fluency(chat, usual, reference=usual).fluent.value
    1.0
    >>> pp.behaviour.fluency(chat, broken, reference=usual).fluent.value
    0.0
    """
    from persona_probe.models.model import Model

    check_types(before=(before, Model), persona_prompt=(persona_prompt, str, [str], None))
    check_types(answers=(answers, Answers, [Dialogue]), reference=(reference, FluencyBounds, Answers, [Dialogue]))
    if before.steered:
        raise PersonaProbeError(
            f"fluency is measured under the unsteered model, but {before.name} is being steered: leave the context "
            "first"
        )
    prompts = [persona_prompt] if isinstance(persona_prompt, str) else list(persona_prompt or ())

    def measured(some: Sequence[Dialogue] | Answers, what: str) -> pd.DataFrame:
        table, dialogues = _table(some, what)
        return table.join(_measures(before, dialogues, prompts, tokens_per_batch, progress).set_axis(table.index))

    bounds = reference if isinstance(reference, FluencyBounds) else FluencyBounds.of(measured(reference, "reference"))
    table = measured(answers, "answers")
    fault = bounds.faults(table)
    return Fluency(table.assign(fault=fault, fluent=fault == ""), bounds)


def _table(answers: Sequence[Dialogue] | Answers, what: str) -> tuple[pd.DataFrame, list[Dialogue | None]]:
    """The columns that name each answer, and its dialogue, or None where the answer is missing."""
    if isinstance(answers, Answers):
        table = answers.table.reset_index(drop=True)
        said = iter(answers.dialogues())
        dialogues = [next(said) if isinstance(answer, str) else None for answer in table["answer"]]
        names = [*(name for name in SETTINGS if name in table), "id", "question", "group", "seed", "prompt", "answer"]
        return table[names], dialogues
    if not answers:
        raise PersonaProbeError(f"fluency: {what} is an empty list; give at least one answered dialogue")
    unanswered = next((dialogue for dialogue in answers if dialogue.answer is None), None)
    if unanswered is not None:
        raise PersonaProbeError(f"dialogue {unanswered.name}: has no answer whose fluency could be measured ({what})")
    table = answer_columns(answers)
    return table[["id", "question", "group", "seed", "prompt", "answer"]], list(answers)


def _measures(
    before: Model,
    dialogues: Sequence[Dialogue | None],
    prompts: Sequence[str],
    tokens_per_batch: int | None,
    progress: bool,
) -> pd.DataFrame:
    """One row per dialogue; NaN where its answer is missing or blank."""
    places = [place for place, one in enumerate(dialogues) if one is not None and (one.answer or "").strip()]
    spoken = [dialogue for place in places if (dialogue := dialogues[place]) is not None]
    numbers = pd.DataFrame({"tokens": np.zeros(len(dialogues), dtype=int)})
    names = ["log_prob_plain", *(["log_prob_persona"] if prompts else []), "log_prob", "distinct", "loops"]
    numbers[names] = np.nan
    numbers["ends_in_loop"] = False
    if not spoken:
        return numbers

    def log_probs(asked: Sequence[Dialogue]) -> Float[np.ndarray, "... answer"]:
        from persona_probe.activations.scoring import answer_log_probs

        sums, counts = answer_log_probs(before, asked, tokens_per_batch=tokens_per_batch, progress=progress)
        return sums / counts

    columns = {"log_prob_plain": log_probs(spoken)}
    if prompts:
        under = [log_probs([dialogue.with_system(prompt) for dialogue in spoken]) for prompt in prompts]
        columns["log_prob_persona"] = np.max(under, axis=0)
    columns["log_prob"] = np.max(list(columns.values()), axis=0)
    tokens = [encoded.input_ids[encoded.span("response")] for encoded in before.encode(spoken)]
    columns["distinct"] = np.array([distinct_share(one) for one in tokens])
    columns["loops"] = np.array([in_loops(one).mean() for one in tokens])
    for name, values in columns.items():
        numbers.loc[places, name] = values
    numbers.loc[places, "tokens"] = [len(one) for one in tokens]
    numbers.loc[places, "ends_in_loop"] = [ends_in_loop(one) for one in tokens]
    return numbers
