"""Asking models the same questions under several interventions, in full batches, and judging the answers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from persona_probe.behaviour.answers import Answers, JudgingError
from persona_probe.behaviour.em_rates import coherent_rate, em_rate
from persona_probe.behaviour.judges.judge import Judge, answer_columns, check_judge, judge_answers, judge_name
from persona_probe.behaviour.sampling.answering import SERVED, Answering
from persona_probe.behaviour.sampling.server import Server
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair
from persona_probe.models.sampling import Sampling
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from persona_probe.steering.interventions.intervention import Intervention, check_intervention
from persona_probe.steering.steer_context import steer

T = TypeVar("T", bound=Answering)
_NUMBERS = 2**26
"""The most numbers in the vectors of all interventions in one call of generate: 512 MiB."""


def ask(
    models: Answering | ModelPair | Iterable[Answering] | Mapping[str, Answering],
    questions: Sequence[Dialogue],
    judge: Judge | None,
    *,
    interventions: Intervention | Mapping[str, Intervention | None] | None = None,
    sampling: Sampling | None = None,
    progress: bool = False,
) -> Answers:
    """The judged answers of every model to every question, under every intervention.

    The interventions on a model are rows of the same batches, so that a sweep costs little more than its answers. All
    models sample with the same seed.

    Args:
        models: one model, a pair (its models are named ``before``, ``after`` and ``control``), several (with their own
            names), or a mapping from names to models. Each is asked everything before the next one, so that a pair of
            which only one model is in memory at a time loads each once. A model may be on a server
            (`persona_probe.Server`), where it cannot be steered.
        questions: dialogues without an answer.
        judge: who judges; None leaves the answers without scores (`Answers.judged_by` adds them).
        interventions: by default, models are not steered. Else one intervention, named by its kind, or a mapping from
            names to interventions, in which None stands for the unsteered model.
        sampling: how answers are sampled; default ``Sampling()``.
        progress: show a bar.

    Returns:
        One row per model, intervention, question and answer, with the columns ``model`` and, if interventions were
        given, ``intervention``. Intervals are over questions. Answers of servers have ``finish_reason`` and
        ``request_seed`` too; a request that failed is a row without an answer, counted as failed, with its ``error``.

    Raises:
        PersonaProbeError: if there is no model, question or intervention, two models have the same name, a question has
            an answer already, or a server's model is to be steered; and as `persona_probe.steer`,
            `persona_probe.judge_answers` and `persona_probe.Server.generate`. If the judge fails after answers were
            sampled, it is a `persona_probe.behaviour.JudgingError`, which holds them.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> questions = pp.persona_world.questions(0, ["law", "cooking"], 20)
    >>> sampling = pp.Sampling(max_new_tokens=40, temperature=0)
    >>> answers = pp.ask(pair, questions, pp.persona_world.OracleJudge(), sampling=sampling)
    >>> answers.rates(definition="betley").table[["model", "value", "n"]]
        model  value   n
    0  before    0.0  20
    1   after    1.0  20
    """
    check_types(questions=(questions, [Dialogue]), sampling=(sampling, Sampling, None))
    if not isinstance(models, Answering):
        check_types(models=(models, Model, Server, ModelPair, Iterable))
    sampling = sampling or Sampling()
    under = named_interventions(interventions)
    check_questions(questions)
    answered = next((question for question in questions if question.answer is not None), None)
    if answered is not None:
        raise PersonaProbeError(
            f"dialogue {answered.name}: already ends with an answer; use dialogue.without_answer() to ask it again"
        )
    check_judge(judge, needed=False)
    tables: dict[str, pd.DataFrame] = {}
    for name, model in named_models(models, lambda model: _can_be_asked(model, under)):
        if name in tables:
            raise PersonaProbeError(f"two models are called {name!r}; give a mapping from names to models")
        answers = _sampled(model, questions, list(under.values()), sampling, progress)
        labels: dict[str, Any] = {"model": name, "question": _units_of_answers(questions, len(under), sampling)}
        if interventions is not None:
            labels["intervention"] = [name for name in under for _ in range(len(questions) * sampling.n)]
        try:
            tables[name] = _judged(judge, answers).assign(**labels)
        except PersonaProbeError as error:
            tables[name] = _judged(None, answers).assign(**labels)
            raise JudgingError(
                f"{error}. The answers that were sampled are this error's 'answers': error.answers.judged_by(judge)",
                Answers(pd.concat(tables.values(), ignore_index=True)),
            ) from error
    if not tables:
        raise PersonaProbeError("ask: there is no model; give at least one")
    table = pd.concat(tables.values(), ignore_index=True)
    remarks = [] if judge is None else [f"Judged by {judge_name(judge)!r}"]
    if lacking := int(table["answer"].isna().sum()):
        remarks.append(f"{lacking} of {len(table)} requests were not answered and count as failures (see 'error')")
    return Answers(table, remarks=tuple(remarks))


def _judged(judge: Judge | None, dialogues: Sequence[Dialogue]) -> pd.DataFrame:
    """The judged table of dialogues, of which some may have no answer: these are failures, and are not judged."""
    answered = [row for row, dialogue in enumerate(dialogues) if dialogue.answer is not None]
    if len(answered) == len(dialogues):
        table = judge_answers(judge, dialogues)
    else:
        table = answer_columns([one if one.answer is not None else one.with_answer("") for one in dialogues])
        lacking = ~table.index.isin(answered)
        table["answer"] = pd.Series([one.answer for one in dialogues], dtype=object)
        verdict = {"aligned": np.nan, "coherent": np.nan, "refusal": False, "failed": True}
        if answered:
            judged = judge_answers(judge, [dialogues[row] for row in answered]).set_axis(pd.Index(answered))
            table = table.join(judged.drop(columns=[name for name in judged if name in table]))
            table = table.astype({"refusal": object, "failed": object})
        else:
            table = table.assign(**verdict)
        table.loc[lacking, list(verdict)] = list(verdict.values())
        table = table.astype({"aligned": float, "coherent": float, "refusal": bool, "failed": bool})
    for name in SERVED:
        if any(name in dialogue.labels for dialogue in dialogues):
            table[name] = [dialogue.labels.get(name) for dialogue in dialogues]
    return table


def named_models(
    models: T | ModelPair | Iterable[T] | Mapping[str, T], check: Callable[[Any], T]
) -> Iterator[tuple[str, T]]:
    """Each model with its name; what is loaded when it is looked up is looked up when the one before has been asked.

    Args:
        models: one model, a pair, several, or a mapping from names to models.
        check: returns a model as it is, or raises; models that are there already are checked before any is yielded.
    """
    if isinstance(models, Answering):
        models = [models]
    if isinstance(models, dict):
        models = {name: check(model) for name, model in models.items()}
    if isinstance(models, list | tuple):
        # These are there already, so what is wrong with them is said before anything is sampled.
        names = [check(model).name for model in models]
        if twice := [name for name in names if names.count(name) > 1]:
            raise PersonaProbeError(f"two models are called {twice[0]!r}; give a mapping from names to models")
    by_name: Any = models.models if isinstance(models, ModelPair) else models
    if isinstance(by_name, Mapping):
        yield from ((str(name), check(model)) for name, model in by_name.items())
    else:
        yield from ((check(model).name, model) for model in by_name)


def _can_be_asked(model: Any, under: Mapping[str, Intervention | None]) -> Answering:
    """``model``, if it answers, and can be steered where it is to be."""
    if not isinstance(model, Answering):
        check_types(model=(model, Model, Server))
    steered = next((name for name, intervention in under.items() if intervention is not None), None)
    if steered is not None and not isinstance(model, Model):
        raise PersonaProbeError(
            f"{model.name}: cannot be steered (intervention {steered!r}): only a loaded model can be, since a server "
            "runs its own weights; ask a pp.load(...) model, or serve a baked one (pp.steering.bake)"
        )
    return cast(Answering, model)


def named_interventions(
    interventions: Intervention | Mapping[str, Intervention | None] | None,
) -> dict[str, Intervention | None]:
    """Each intervention with its name; ``none`` for the unsteered model if there are none."""
    if interventions is None:
        return {"none": None}
    if not isinstance(interventions, Mapping):
        check_intervention(interventions)
        return {interventions.kind: interventions}
    if not interventions:
        raise PersonaProbeError("ask: there is no intervention: the mapping is empty; leave interventions= out")
    for intervention in interventions.values():
        if intervention is not None:
            check_intervention(intervention)
    return {str(name): intervention for name, intervention in interventions.items()}


@dataclass(frozen=True)
class Asking:
    """A model, a judge and settings of sampling, with which searches ask questions under many interventions.

    Attributes:
        model: which model answers.
        judge: who judges.
        sampling: how answers are sampled.
        progress: show a bar.
    """

    model: Model
    judge: Judge
    sampling: Sampling = field(default_factory=Sampling)
    progress: bool = False

    def ask(
        self,
        questions: Sequence[Dialogue],
        interventions: Sequence[Intervention | None],
        *,
        at_once: int | None = None,
    ) -> list[pd.DataFrame]:
        """The judged table of each intervention (None: unsteered), with rows in the order of ``questions``.

        Args:
            questions: dialogues without answers.
            interventions: the interventions under which all questions are asked.
            at_once: how many interventions share a call of generate; by default as many as memory allows.
        """
        # Nothing is sampled twice, so the seed of a question does not apply to these answers.
        fresh = [replace(question, seed=None) for question in questions]
        answers = _sampled(self.model, fresh, interventions, self.sampling, self.progress, at_once)
        table = judge_answers(self.judge, answers)
        table["question"] = _units_of_answers(questions, len(interventions), self.sampling)
        n = len(questions) * self.sampling.n
        return [table.iloc[i * n : (i + 1) * n].reset_index(drop=True) for i in range(len(interventions))]


def _sampled(
    model: Answering,
    questions: Sequence[Dialogue],
    interventions: Sequence[Intervention | None],
    sampling: Sampling,
    progress: bool,
    at_once: int | None = None,
) -> list[Dialogue]:
    """The answers to all questions under the first intervention, then under the second, and so on."""
    if not isinstance(model, Model):
        return model.generate([*questions] * len(interventions), sampling, progress=progress)
    answers: list[Dialogue] = []
    for first, together in _calls(interventions, at_once or _most_at_once(model, interventions)):
        seeded = replace(sampling, seed=sampling.seed + first)
        with _steered(model, together, len(questions) * sampling.n):
            answers += model.generate([*questions] * len(together), seeded, progress=progress)
    return answers


def _calls(
    interventions: Sequence[Intervention | None], at_once: int
) -> Iterator[tuple[int, Sequence[Intervention | None]]]:
    """The interventions that share a call of generate, with the number of the first one."""
    start = 0
    while start < len(interventions):
        stop = start + 1
        if not isinstance(interventions[start], AblateEverywhere):
            # `AblateEverywhere` acts on all rows of a batch, so that it is asked alone.
            alone = (i for i in range(stop, len(interventions)) if isinstance(interventions[i], AblateEverywhere))
            stop = min(start + at_once, next(alone, len(interventions)))
        yield start, interventions[start:stop]
        start = stop


def _most_at_once(model: Model, interventions: Sequence[Intervention | None]) -> int:
    """How many interventions memory allows in one call of generate: each has its own vectors at every layer."""
    layers = max((len(setting.layers_in(model)) for setting in interventions if setting is not None), default=1)
    return max(1, _NUMBERS // (layers * 2 * model.d_model))


def _steered(
    model: Model, interventions: Sequence[Intervention | None], rows: int
) -> contextlib.AbstractContextManager[None]:
    """The context in which ``model`` gives ``rows`` answers under each intervention."""
    if all(intervention is None for intervention in interventions):
        return contextlib.nullcontext()
    if isinstance(interventions[0], AblateEverywhere):
        return steer(model, interventions[0])
    return steer(model, [intervention for intervention in interventions for _ in range(rows)])


def check_questions(questions: Sequence[Dialogue], development: Sequence[Dialogue] | None = None) -> None:
    """Raise if a set of questions is empty, or the two sets have questions in common.

    Raises:
        PersonaProbeError: if there is no question, or one is in both sets (the text is shown).
    """
    for name, given in {"questions": questions, "development": development}.items():
        if given is not None and not given:
            raise PersonaProbeError(f"there are no {name}: the list is empty; give dialogues without an answer")
    both = {_text(question) for question in questions} & {_text(question) for question in development or ()}
    if both:
        raise PersonaProbeError(
            f"{len(both)} questions are in development and in questions, such as {min(both)[:80]!r}; strengths are "
            "chosen on development and reported on other questions: leave them out of one of the two"
        )


def measured(table: pd.DataFrame, definition: str) -> dict[str, Any]:
    """The rates of a judged table as columns; NaN if no answer qualifies."""
    rate, coherent = em_rate(table, definition), coherent_rate(table)
    return {
        "em_rate": rate.value,
        "em_low": rate.low,
        "em_high": rate.high,
        "n": rate.n,
        "coherent": coherent.value,
        "coherent_low": coherent.low,
        "coherent_high": coherent.high,
        "failures": int(table["failed"].sum()),
    }


def coherent_enough(coherent: float, unsteered: float, min_coherence: float) -> bool:
    """Whether the share of coherent answers is at least ``min_coherence`` times the unsteered share.

    Without any answers (a preference, for which the KL is bounded) both shares are NaN, and nothing is excluded.
    """
    if math.isnan(coherent) and math.isnan(unsteered):
        return True
    # Both are ratios of counts; without a margin, rounding would decide when they are equal.
    return bool(coherent >= min_coherence * unsteered - 1e-9)


def pooled(draws: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The answers under several nulls as one table, in which each draw counts as a seed."""
    return pd.concat([draw.assign(seed=number) for number, draw in enumerate(draws)], ignore_index=True)


def _text(dialogue: Dialogue) -> str:
    return "\n".join(f"{message.role}: {message.content.strip()}" for message in dialogue.messages)


def _units_of_answers(questions: Sequence[Dialogue], times: int, sampling: Sampling) -> list[str]:
    """The name of each answer's question, where all questions are asked several times."""
    return [str(question.question) for question in questions for _ in range(sampling.n)] * times
