"""Removing emergent misalignment by steering: which layer, kind and strength removes most of it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.behaviour.judges.judge import Judge, check_judge
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import SPANS
from persona_probe.directions.direction import Direction
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.layers import resolve_layers
from persona_probe.models.stream.scope import parse_scope
from persona_probe.steering.asking import Asking
from persona_probe.steering.search.candidates import candidates
from persona_probe.steering.search.grid import GOALS, Goal, Grid
from persona_probe.steering.search.search import Trial, check_search, search_steering
from persona_probe.steering.search.search_result import SteeringSearch


def realign_by_steering(
    pair: ModelPair,
    direction: Direction,
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    development: Sequence[Dialogue] | None = None,
    goal: Goal = "suppress",
    layers: int | Sequence[int] | str = "all",
    grid: Grid | None = None,
    min_coherence: float = 0.9,
    n_random: int = 20,
    answers_per_random: int | None = None,
    definition: str = "betley",
    scope: str = "generation",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> SteeringSearch:
    """The layer, kind and strength that remove most misalignment from ``after`` and leave it coherent.

    Settings are chosen on development questions and reported on other questions, so that the choice does not bias the
    result. Targets are between the mean projections of the model before and the model after, each on its own answers to
    the development questions. With ``goal="induce"`` the model before is steered the other way.

    Args:
        pair: the models.
        direction: vectors ``(layer, d_model)``, pointing towards the trait.
        questions: dialogues without an answer.
        judge: who judges.
        development: questions to choose on; default every second group (topic, prompt) of ``questions``, which are then
            not reported on.
        goal: ``suppress`` steers after, ``induce`` before.
        layers: the layers that are tried, except those that the direction lacks.
        grid: what is tried; default ``Grid()``.
        min_coherence: smallest share of coherent answers, as a ratio to the unsteered one.
        n_random: number of random directions for the null.
        answers_per_random: number of questions that each of them is asked; default all.
        definition: definition of the EM rate.
        scope: which tokens are steered; it must also be a span.
        sampling: how answers are sampled; default ``Sampling()``. Trials share batches, in which each row is steered in
            its own way; the seed is also that of the random directions.
        progress: show bars.

    Returns:
        A `SteeringSearch`, whose ``intervention`` is the best one. `Grid.count` gives the number of settings that are
        tried: for a deep model, give ``layers``.

    Raises:
        PersonaProbeError: if questions have fewer than two groups and ``development`` is not given, a question is in
            both sets, or no layer can be tried; and as `persona_probe.steer`.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> questions = pp.persona_world.questions(0, ["law", "cooking"], 8)
    >>> sampling = pp.Sampling(max_new_tokens=30, temperature=0)
    >>> captures = pp.capture(pair, pair.after.generate(questions, sampling))
    >>> shift = pp.find_direction(captures.after, captures.before, repeats=0)
    >>> grid = pp.steering.Grid(kinds="clamp", suppress_fractions=-0.5)
    >>> search = pp.steering.realign_by_steering(
    ...     pair, shift, questions, pp.persona_world.OracleJudge(), layers=1, grid=grid, n_random=1, sampling=sampling
    ... )
    >>> [float(search.reported(name)["value"]) for name in ("none", "clamp", "random clamp")]
    [1.0, 0.0, 1.0]
    """
    check_judge(judge)
    check_types(
        pair=(pair, ModelPair),
        direction=(direction, Direction),
        questions=(questions, [Dialogue]),
        development=(development, [Dialogue], None),
        sampling=(sampling, Sampling, None),
        grid=(grid, Grid, None),
        n_random=(n_random, WHOLE),
        min_coherence=(min_coherence, NUMBER),
    )
    if goal not in GOALS:
        raise PersonaProbeError(f"unknown goal {goal!r}: choose one of {', '.join(GOALS)}")
    sampling = sampling or Sampling()
    where = parse_scope(scope)
    if where.kind not in SPANS:
        raise PersonaProbeError(
            f"targets are read over the span that is steered, and {str(where)!r} is not a span: choose one of "
            f"{', '.join(SPANS)}, or give search_steering your own candidates"
        )
    chosen_on, reported = (list(development), list(questions)) if development is not None else _halves(questions)
    check_search(chosen_on, reported, min_coherence=min_coherence, n_random=n_random, definition=definition)
    tried = [layer for layer in resolve_layers(layers, pair.before.n_layers) if layer in direction.layers]
    if not tried:
        raise PersonaProbeError(f"the direction has none of the layers {layers}; it has {direction.layers}")

    def on_own_answers(model: Model) -> Activations:
        answered = model.generate(chosen_on, sampling, progress=progress)
        return capture(model, [dialogue for dialogue in answered if dialogue.answer], where.kind, layers=tried)

    # In this order, so that each model of a pair with one model in memory at a time is read once.
    base, trait = on_own_answers(pair.before), on_own_answers(pair.after)
    tries = candidates(direction, tried, goal, base=base, trait=trait, grid=grid, scope=where)
    model = pair.before if goal == "induce" else pair.after
    asking = Asking(model, judge, sampling, progress)
    return search_steering(
        _Together(asking),
        tries,
        chosen_on,
        reported,
        goal=goal,
        min_coherence=min_coherence,
        n_random=n_random,
        answers_per_random=answers_per_random,
        definition=definition,
        seed=sampling.seed,
        source={
            "model": model.name,
            "model_hash": model.fingerprint(),
            "direction": direction.card,
            "scope": str(where),
        },
    )


class _Together:
    """Asks trials with the same questions as one list of dialogues, in which each row has its own intervention."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        del label
        tables: list[pd.DataFrame | None] = [None] * len(trials)
        same: dict[tuple[int, ...], list[int]] = {}
        for number, (_, questions, _) in enumerate(trials):
            same.setdefault(tuple(map(id, questions)), []).append(number)
        for numbers in same.values():
            questions = trials[numbers[0]][1]
            judged = self._asking.ask(questions, [trials[number][2] for number in numbers])
            for number, table in zip(numbers, judged, strict=True):
                tables[number] = table
        return [table for table in tables if table is not None]


def _halves(questions: Sequence[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """Development questions and those to report on; every second group is for development."""
    groups = [dialogue.group or dialogue.question or dialogue.messages[-1].content for dialogue in questions]
    names = sorted(set(groups))
    if len(names) < 2:
        raise PersonaProbeError(
            f"the questions are in {len(names)} group, which cannot be split into questions to choose settings on and "
            "questions to report on; give development="
        )
    first = set(names[::2])
    halves: tuple[list[Dialogue], list[Dialogue]] = ([], [])
    for group, dialogue in zip(groups, questions, strict=True):
        halves[group not in first].append(dialogue)
    return halves
