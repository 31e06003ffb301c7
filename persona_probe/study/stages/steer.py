"""Stage 8: does the direction cause the behaviour? Induce it in before, suppress it in after; random ones as null.

Settings are found by forward passes (`persona_probe.steering.search.ladder`); only the best are sampled and judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.behaviour.answer_fluency import fluency
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.judges.judge import judge_answers
from persona_probe.behaviour.preference_pairs import CONTENT, PreferencePair
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NothingMeasuredError
from persona_probe.figures.text import percent
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig
from persona_probe.steering.asking import coherent_enough
from persona_probe.steering.search.candidates import Candidate, Candidates
from persona_probe.steering.search.grid import Goal, Grid, evenly
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.measure import EM_RATE, Judged, Measure, Preferred, Trial
from persona_probe.steering.search.reading import own_answers_reader, pairs_reader
from persona_probe.steering.search.realign import NORM_TEXTS, layers_to_try
from persona_probe.steering.search.screen import screen_ladder
from persona_probe.steering.search.search import search_steering
from persona_probe.steering.search.search_result import SteeringSearch, StoredCandidate
from persona_probe.study.context import Context
from persona_probe.study.executor import AnswerJob
from persona_probe.study.material import Material
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.preference import FLUENCY_PROMPTS
from persona_probe.study.workload import Sizes, Work

_GOALS: tuple[Goal, ...] = ("induce", "suppress")
HEADLINE = "clamp"
"""The kind of intervention of the results and of the null: it sets a projection, so it needs no strength per layer."""


def steering(context: Context, found: Found) -> pd.DataFrame | None:
    """Choose settings on development questions (or pairs) and report them on others.

    Returns:
        Without a judge, answers under each chosen setting and without steering (``model``: the goal and the kind of
        intervention); None where steering was not measured, or answers were judged.
    """
    if context.judge is None and not _pairs(context.config, context.material)[0]:
        context.notes.append("Without a judge or 'measure: preference', steering was not measured.")
        return None
    try:
        # Pairs are read in place of answers that were sampled.
        persona = [] if _pairs(context.config, context.material)[0] else _as_persona(context)
        searches = [_search(context, found, goal, persona) for goal in _GOALS]
    except NothingMeasuredError as error:
        # That no answer is coherent, or has text, is a result, and not a reason to stop the later stages.
        context.notes.append(f"Steering was not measured: {error}.")
        return None
    screens = [search.screen.table.assign(goal=search.source["goal"]) for search in searches if search.screen]
    for name, tables in {
        "steering": [search.table for search in searches],
        "steering_answers": [search.answers for search in searches],
        "steering_screen": screens,
    }.items():
        context.folder.write_table(name, pd.concat(tables, ignore_index=True))
    context.store("steering", {search.source["goal"]: search for search in searches})
    context.results["steer"] = {key: value for search in searches for key, value in _outcome(search).items()}
    return _fluency(context, found, searches) if context.judge is None else None


def _pairs(config: StudyConfig, material: Material) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to choose settings on and pairs to report on, where preference stands for the EM rate; else none."""
    if config.measure != "preference":
        return [], []
    both = (material.development_pairs, material.reported_pairs)
    chosen_on, reported = ([pair for pair in pairs if pair.kind == CONTENT] for pairs in both)
    return chosen_on, reported


class _Jobs:
    """Trials as jobs of the study's executor, so that they run wherever its models do."""

    def __init__(self, context: Context, model: Model) -> None:
        self._context, self._model = context, model

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """Sample and judge every trial; each draws random numbers of its own."""
        jobs = [self._context.job(self._model, asked, purpose, steering) for purpose, asked, steering in trials]
        return self._context.judged_all(jobs, label)


def _search(context: Context, found: Found, goal: Goal, persona: Sequence[Dialogue]) -> SteeringSearch:
    settings, direction, material = context.config.steering, found.contrast.direction, context.material
    grid, progress = settings.grid, context.progress
    model = context.before if goal == "induce" else context.after
    layers = layers_to_try(direction, context.before.n_layers, settings.layers)
    asked = material.development[: _n_asked(grid)]
    own = found.own if goal == "induce" else context.answer(context.after, asked, "development after")
    own = [dialogue for dialogue in own if (dialogue.answer or "").strip()]
    if not own:
        raise NothingMeasuredError(f"{model.name} gave no answer with text to {len(asked)} development questions")
    tokens = context.executor.capture(model, own[:NORM_TEXTS], reduce="tokens", layers=layers)
    made = Candidates(direction, goal, tokens=tokens, base=found.reference, trait=found.contrast.trait, grid=grid)
    chosen_pairs, reported_pairs = _pairs(context.config, material)
    if chosen_pairs:
        reader = pairs_reader(model, own[: grid.texts], chosen_pairs[: grid.texts], progress=progress)
    else:
        usual = {_turns(dialogue.without_answer()): dialogue for dialogue in found.own}
        questions = [_turns(question) for question in asked]
        both = [(usual[turns], said) for turns, said in zip(questions, persona, strict=True) if turns in usual]
        base, trait = [one for one, _ in both], [said for _, said in both]
        reader = own_answers_reader(model, base, trait, own=own[: grid.texts], n=grid.texts, progress=progress)
    ladder = Ladder(reader, made, layers, grid)
    screen = screen_ladder(reader, ladder, goal=goal, n_random=settings.random_directions, seed=context.config.seed)
    measure: Measure = (
        Preferred(model, own[: grid.texts], progress=progress)
        if chosen_pairs
        else Judged(_Jobs(context, model), context.config.definition)
    )
    best = [rung.candidate for rung in ladder.best(likelier=bool(chosen_pairs))]
    return search_steering(
        measure,
        _fluent(context, found, goal, model, best) if chosen_pairs else best,
        chosen_pairs or material.development[: settings.answers_per_setting],
        reported_pairs or material.reported[: settings.reported_answers],
        goal=goal,
        ladder=ladder,
        screen=screen,
        min_coherence=settings.min_coherence,
        n_random=settings.random_directions,
        answers_per_random=None if chosen_pairs else settings.answers_per_random,
        null_of=HEADLINE,
        seed=context.config.seed,
    )


def _as_persona(context: Context) -> list[Dialogue]:
    """The answers of *before* as the persona, without the system prompts that asked for it.

    Those of *after* would do, if it were always misaligned; here narrow training may have done little.
    """
    asked = context.material.development[: _n_asked(context.config.steering.grid)]
    prompted = under_prompts(asked, context.material.trait_prompts)
    answered = context.answer(context.before, prompted, "development persona")
    return [question.with_answer(said.answer or "") for question, said in zip(asked, answered, strict=True)]


def _turns(dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.content) for message in dialogue.messages)


def _n_asked(grid: Grid) -> int:
    """How many development questions are asked to have texts to read: twice as many, since some answers are empty."""
    return 2 * max(grid.texts, NORM_TEXTS)


def _outcome(search: SteeringSearch) -> dict[str, Any]:
    """The numbers that the report's sentences quote."""
    goal, plain, randoms = search.source["goal"], search.reported("none"), search.random
    best, candidate = search.reported(HEADLINE), search.chosen[HEADLINE]
    what = "em_rate" if search.measure == EM_RATE else "preference"
    outcome = {
        what: best["value"],
        "low": best["low"],
        "high": best["high"],
        "coherent": best["coherent"],
        "layers": candidate.layers,
        "dose": candidate.setting,
        "kl": best["kl"],
        "wrong_way": best["wrong_way"],
        "n": best["n"],
        f"random_{what}": _mean(randoms["value"]),
        "random_coherent": _mean(randoms["coherent"]),
        f"unsteered_{what}": plain["value"],
        "unsteered_coherent": plain["coherent"],
    }
    for kind in search.chosen:
        if kind != HEADLINE:
            row = search.reported(kind)
            outcome |= {f"{kind}_{what}": row["value"], f"{kind}_coherent": row["coherent"]}
    outcome["verdict"] = search.verdict()
    if search.screen is not None:
        outcome |= {
            "steerable": search.screen.steerable if search.screen.enough else None,
            "screen_p": search.screen.p_value,
            "screen_verdict": search.screen.verdict(),
        }
    return {f"{goal}_{name}": value for name, value in outcome.items()}


def _fluent(
    context: Context, found: Found, goal: Goal, model: Model, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """The candidates under which enough sampled answers are fluent, or the most fluent one of a kind that has none.

    With a judge, incoherent answers are seen; with pairs, nothing else would notice them.
    """
    asked = context.material.development[: context.config.steering.answers_per_setting]
    jobs: dict[tuple[Goal, str], AnswerJob] = {
        (goal, str(number)): context.job(model, asked, f"{goal} fluency of {number}: {candidate}", given)
        for number, (candidate, given) in enumerate([("none", None), *((one, one.intervention) for one in candidates)])
    }
    plain, *steered = _fluent_shares(context, found, jobs)[0].values()
    least = context.config.steering.min_coherence
    shares = list(zip(candidates, steered, strict=True))
    kept: list[Candidate] = []
    for kind in dict.fromkeys(candidate.intervention.kind for candidate in candidates):
        own = [(candidate, share) for candidate, share in shares if candidate.intervention.kind == kind]
        enough = [candidate for candidate, share in own if coherent_enough(share, plain, least)]
        kept += enough or [max(own, key=lambda one: one[1])[0]]
    if broken := [(one, share) for one, share in shares if not coherent_enough(share, plain, least)]:
        taken = [id(candidate) for candidate in kept]
        listed = "; ".join(
            f"{candidate}: {percent(share)}{', kept as the most fluent one of its kind' * (id(candidate) in taken)}"
            for candidate, share in broken
        )
        context.notes.append(
            f"To {goal}, answers are not fluent enough under some settings, which were left out ({percent(plain)} "
            f"unsteered; {listed}; n = {len(asked)} development answers each)."
        )
    return kept


def _fluency(context: Context, found: Found, searches: Sequence[SteeringSearch]) -> pd.DataFrame:
    """Without a judge: how many answers are fluent under each chosen setting, and without steering; these answers."""
    asked = context.material.reported[: context.config.steering.answers_per_setting]
    goals: dict[Goal, dict[str, StoredCandidate | None]] = {
        search.source["goal"]: {"none": None, **search.chosen} for search in searches
    }
    jobs = {
        (goal, kind): context.job(
            context.before if goal == "induce" else context.after,
            asked,
            f"{goal} fluency {kind}",
            None if setting is None else setting.intervention,
        )
        for goal, settings in goals.items()
        for kind, setting in settings.items()
    }
    fluent, answers = _fluent_shares(context, found, jobs, table="steering_fluency")
    least = context.config.steering.min_coherence
    for (goal, kind), share in fluent.items():
        context.results["steer"].setdefault(f"{goal}_fluent", {})[kind] = share
    for goal in goals:
        shares = context.results["steer"][f"{goal}_fluent"]
        listed = ", ".join(
            f"{percent(share)} {'unsteered' if kind == 'none' else kind}" for kind, share in shares.items()
        )
        broken = [kind for kind, share in shares.items() if not coherent_enough(share, shares["none"], least)]
        failed = f"; the model is broken under {' and '.join(broken)}" if broken else ""
        context.results["steer"][f"{goal}_fluency_verdict"] = (
            f"{goal.capitalize()}: fluent answers, by bounds from before's own: {listed} (n = {len(asked)} each)"
            f"{failed}."
        )
    return answers.assign(model=answers["model"] + " " + answers["intervention"])


def _fluent_shares(
    context: Context, found: Found, jobs: Mapping[tuple[Goal, str], AnswerJob], table: str | None = None
) -> tuple[dict[tuple[Goal, str], float], pd.DataFrame]:
    """The share of fluent answers of each job, by its goal and intervention, and the answers.

    The summary is written as ``table``, if that is given.
    """
    tables = [
        judge_answers(None, answered, model=goal, intervention=name)
        for (goal, name), answered in zip(jobs, context.answer_all(list(jobs.values()), "steered answers"), strict=True)
    ]
    answers = pd.concat(tables, ignore_index=True)
    measured = fluency(
        context.before,
        Answers(answers),
        reference=found.own,
        persona_prompt=context.material.trait_prompts[:FLUENCY_PROMPTS],
        progress=context.progress,
    )
    if table is not None:
        context.folder.write_table(table, measured.summary())
    rows = measured.summary(["model", "intervention"])
    fluent = rows[rows["measure"] == "fluent"].set_index(["model", "intervention"])["value"]
    return {job: float(fluent[job]) for job in jobs}, answers


def _mean(values: Iterable[float]) -> float | None:
    """The mean of the draws that could be measured, or None if there are none."""
    measured = [value for value in values if np.isfinite(value)]
    return float(np.mean(measured)) if measured else None


def _work(sizes: Sizes) -> Work:
    search, material = sizes.config.steering, sizes.material
    chosen_pairs, reported_pairs = _pairs(sizes.config, material)
    if sizes.config.judge is None and not chosen_pairs:
        return Work()
    grid = search.grid
    asked = material.development[: _n_asked(grid)]
    chosen_on = material.development[: search.answers_per_setting]
    measured_on = material.reported[: search.reported_answers]
    null = search.random_directions * min(search.answers_per_random, len(measured_on))
    layers = len(evenly(range(sizes.n_layers)) if search.layers is None else search.layers)
    settings = grid.n_read(layers) + grid.n_screened(layers, search.random_directions)
    # The unsteered model is read in every round, and with every 31 settings (`measure_divergence`).
    passes = settings + settings // 31 + grid.n_rounds + 1
    # The answers of the model after and, without pairs, those of the persona; nobody judges them.
    work = sizes.work(asked, answers=(1 if chosen_pairs else 2) * len(asked), judged=0)
    own = min(grid.texts, len(asked))
    for _ in _GOALS:
        if chosen_pairs:
            reported = 2 + len(search.kinds) + search.random_directions
            chosen = passes + 1 + grid.n_sampled
            work += sizes.work(asked, texts=(chosen + reported) * own + NORM_TEXTS)
            work += sizes.pairs_work(chosen_pairs[: grid.texts], passes)
            work += sizes.pairs_work(chosen_pairs, 1 + grid.n_sampled)
            work += sizes.pairs_work(reported_pairs, reported)
            sampled = (2 + len(search.kinds) + grid.n_sampled) * len(chosen_on)
            readings = 1 + len(material.trait_prompts[:FLUENCY_PROMPTS])
            work += sizes.work(chosen_on, answers=sampled, texts=readings * sampled)
            continue
        # The model's own answers, and those without the trait and with it.
        sides = 3
        work += sizes.work(asked, texts=passes * sides * own + NORM_TEXTS)
        work += sizes.work(chosen_on, answers=(1 + grid.n_sampled) * len(chosen_on))
        work += sizes.work(measured_on, answers=(1 + len(search.kinds)) * len(measured_on) + null)
    return work


STEER = Stage(
    "steer",
    steering,
    work=_work,
    settings=(*SAMPLING, "steering", "definition", "measure"),
    material=("development", "reported", "trait_prompts", "development_pairs", "reported_pairs"),
    needs=("find",),
    judged=True,
)
