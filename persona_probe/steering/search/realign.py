"""Removing emergent misalignment by steering: which layer, kind and strength removes most of it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona_probe.activations.capturing import capture
from persona_probe.behaviour.em_rates import check_definition
from persona_probe.behaviour.judges.judge import Judge, check_judge
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import SPANS
from persona_probe.directions.direction import Direction
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.pair import ModelPair
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.layers import resolve_layers
from persona_probe.models.stream.scope import parse_scope
from persona_probe.steering.asking import Asking
from persona_probe.steering.search.candidates import Candidates
from persona_probe.steering.search.grid import GOALS, Goal, Grid, evenly
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.measure import Judged, Measure, Preferred, Trial
from persona_probe.steering.search.reading import Pair, Reader, own_answers_reader, pairs_reader
from persona_probe.steering.search.screen import screen_ladder
from persona_probe.steering.search.search import check_search, search_steering
from persona_probe.steering.search.search_result import SteeringSearch

NORM_TEXTS = 8
"""How many answers are read token by token, for the length of the stream and where its projections lie."""


def realign_by_steering(
    pair: ModelPair,
    direction: Direction,
    questions: Sequence[Dialogue],
    judge: Judge | None = None,
    *,
    pairs: Sequence[Pair] | None = None,
    development: Sequence[Dialogue] | None = None,
    goal: Goal = "suppress",
    layers: int | Sequence[int] | str | None = None,
    grid: Grid | None = None,
    min_coherence: float = 0.9,
    n_random: int = 20,
    answers_per_random: int | None = None,
    definition: str = "betley",
    scope: str = "generation",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> SteeringSearch:
    """The layer, kind and dose that remove most misalignment from ``after`` and leave it coherent.

    Doses are relative to the stream's length. At each layer they are doubled until the model breaks (its KL to itself
    unsteered, on its own answers, is too large), and refined; forward passes also say how far each setting moves the
    preference between the two models' own answers (with ``pairs``, between theirs). Only the settings that move it
    furthest within each budget of KL are then sampled and judged, on development questions, and the best of each kind
    is reported on other questions. Without a judge, settings are chosen and reported by the preference on ``pairs``,
    and nothing but the two models' answers to the development questions is sampled. With ``goal="induce"`` the model
    before is steered the other way.

    Args:
        pair: the models.
        direction: vectors ``(layer, d_model)``, pointing towards the trait.
        questions: dialogues without an answer.
        judge: who judges; None: the preference on ``pairs`` is the measure of behaviour.
        pairs: questions with aligned and misaligned answers (`persona_probe.behaviour.PreferencePair`).
        development: questions to choose on; default every second group (topic, prompt) of ``questions``, which are then
            not reported on. Pairs are halved in the same way.
        goal: ``suppress`` steers after, ``induce`` before.
        layers: the layers that are tried, except those that the direction lacks; default all, or ten evenly spaced ones
            of a deeper model.
        grid: what is tried; default ``Grid()``.
        min_coherence: smallest share of coherent answers, as a ratio to the unsteered one.
        n_random: number of random directions for the null and for the screen, which needs 19 for a test at 5 %.
        answers_per_random: number of questions that each of them is asked; default all.
        definition: definition of the EM rate.
        scope: which tokens are steered; it must also be a span.
        sampling: how answers are sampled; default ``Sampling()``. Trials share batches, in which each row is steered in
            its own way; the seed is also that of the random directions.
        progress: show bars.

    Returns:
        A `SteeringSearch`, whose ``intervention`` is the best one, and whose ``screen`` says whether the direction
        steers at all. `Grid.n_read` and `Grid.n_sampled` say how many settings are read and sampled.

    Raises:
        PersonaProbeError: if there is neither a judge nor pairs, questions have fewer than two groups and
            ``development`` is not given, a question is in both sets, or no layer can be tried; and as
            `persona_probe.steer`.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> questions = pp.persona_world.questions(0, ["law", "cooking"], 8)
    >>> sampling = pp.Sampling(max_new_tokens=30, temperature=0)
    >>> captures = pp.capture(pair, pair.after.generate(questions, sampling))
    >>> shift = pp.find_direction(captures.after, captures.before, repeats=0)
    >>> grid = pp.steering.Grid(kinds="clamp", budgets=0.5)
    >>> search = pp.steering.realign_by_steering(
    ...     pair, shift, questions, pp.persona_world.OracleJudge(), layers=2, grid=grid, n_random=1, sampling=sampling
    ... )
    >>> [float(search.reported(name)["value"]) for name in ("none", "clamp", "random clamp")]
    [1.0, 0.0, 1.0]
    """
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
    if judge is None and pairs is None:
        raise PersonaProbeError(
            "realign_by_steering needs a measure of behaviour: give judge=, or pairs= of aligned and misaligned answers"
        )
    check_definition(definition)
    sampling, grid = sampling or Sampling(), grid or Grid()
    where = parse_scope(scope)
    if where.kind not in SPANS:
        raise PersonaProbeError(
            f"targets are read over the span that is steered, and {str(where)!r} is not a span: choose one of "
            f"{', '.join(SPANS)}, or give search_steering your own candidates"
        )
    chosen_on, reported = (list(development), list(questions)) if development is not None else _halves(questions)
    chosen_pairs, reported_pairs = halves_of_pairs(pairs) if pairs is not None else ([], [])
    check_search(chosen_on, reported, min_coherence=min_coherence, n_random=n_random)
    tried = layers_to_try(direction, pair.before.n_layers, layers)
    check_judge(judge, needed=False)
    model = pair.before if goal == "induce" else pair.after
    answers = {
        side: asked.generate(chosen_on, sampling, progress=progress)
        for side, asked in (("base", pair.before), ("trait", pair.after))
    }
    own = "base" if goal == "induce" else "trait"
    texts = {side: [dialogue for dialogue in answered if dialogue.answer] for side, answered in answers.items()}
    means = {
        side: capture(asked, texts[side], where.kind, layers=tried)
        for side, asked in (("base", pair.before), ("trait", pair.after))
    }
    tokens = capture(model, texts[own][:NORM_TEXTS], where.kind, "tokens", layers=tried)
    made = Candidates(direction, goal, tokens=tokens, base=means["base"], trait=means["trait"], grid=grid, scope=where)
    reader: Reader = (
        pairs_reader(model, texts[own][: grid.texts], chosen_pairs[: grid.texts], progress=progress)
        if chosen_pairs
        else own_answers_reader(
            model, answers["base"], answers["trait"], own=texts[own][: grid.texts], n=grid.texts, progress=progress
        )
    )
    ladder = Ladder(reader, made, tried, grid)
    screen = screen_ladder(reader, ladder, goal=goal, n_random=n_random, seed=sampling.seed) if n_random else None
    measure: Measure
    if judge is None:
        measure = Preferred(model, texts[own][: grid.texts], progress=progress)
    else:
        measure = Judged(_Together(Asking(model, judge, sampling, progress)), definition)
    return search_steering(
        measure,
        [rung.candidate for rung in ladder.best(likelier=judge is None)],
        chosen_on if judge is not None else chosen_pairs,
        reported if judge is not None else reported_pairs,
        goal=goal,
        ladder=ladder,
        screen=screen,
        min_coherence=min_coherence,
        n_random=n_random,
        answers_per_random=answers_per_random,
        seed=sampling.seed,
        source={
            "model": model.name,
            "model_hash": model.fingerprint(),
            "direction": direction.card,
            "scope": str(where),
        },
    )


def layers_to_try(direction: Direction, n_layers: int, layers: int | Sequence[int] | str | None = None) -> list[int]:
    """The layers that a search tries: those given, or all; ten evenly spaced ones of a deeper model.

    Raises:
        PersonaProbeError: if the direction has none of them.

    >>> import numpy as np, persona_probe as pp
    >>> from persona_probe.steering.search.realign import layers_to_try
    >>> layers_to_try(pp.Direction(np.ones((32, 4)), tuple(range(32))), 32)
    [1, 4, 8, 11, 14, 17, 20, 24, 27, 30]
    """
    wanted = resolve_layers("all" if layers is None else layers, n_layers)
    tried = [layer for layer in wanted if layer in direction.layers]
    if not tried:
        raise PersonaProbeError(f"the direction has none of the layers {layers}; it has {direction.layers}")
    return evenly(tried) if layers is None else tried


def halves_of_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to choose settings on, and pairs to report on: every second one; style nulls are left out.

    Raises:
        PersonaProbeError: if there are fewer than four, or two of them ask the same question.
    """
    about = [pair for pair in pairs if getattr(pair, "kind", "content") == "content"]
    if len(about) < 4:
        raise PersonaProbeError(
            f"there are {len(about)} pairs that differ in content; give four or more, of which half are for the choice"
        )
    names = [pair.name for pair in about]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PersonaProbeError(
            f"the question {twice[:60]!r} is in two pairs; put all wordings of its answers into one, since settings "
            "are chosen on some questions and reported on others"
        )
    return about[::2], about[1::2]


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
    groups = [dialogue.group or str(dialogue.question) for dialogue in questions]
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
