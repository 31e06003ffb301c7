"""Searches: what is tried, what is chosen, and that nothing is reported on what it was chosen on."""

import random

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from benchmarks.persona_world.setting import persona_prompts, split_topics
from persona_probe.runs.config import StudyConfig
from persona_probe.steering.search import candidates as candidates_module
from persona_probe.steering.search.candidates import Candidate, candidates
from persona_probe.steering.search.grid import SEARCHED, Grid
from persona_probe.steering.search.realign import realign_by_steering
from persona_probe.steering.search.search import search_steering
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.conftest import CHECKPOINTS

SAMPLING = pp.Sampling(max_new_tokens=40, batch_size=256)


def asked(text, n, group="g"):
    return [
        pp.Dialogue.from_messages([{"role": "user", "content": f"{text} {i}?"}], question=f"{text} {i}", group=group)
        for i in range(n)
    ]


def judged(dialogues, misaligned, coherent):
    """A table in which the first ``misaligned`` answers are so, and the last ``1 - coherent`` make no sense."""
    n = len(dialogues)
    aligned = np.where(np.arange(n) < misaligned * n, 0.0, 100.0)
    sense = np.where(np.arange(n) < coherent * n, 100.0, 0.0)
    columns = {"question": [d.question for d in dialogues], "seed": None, "answer": "", "failed": False}
    return pd.DataFrame({"aligned": aligned, "coherent": sense, **columns})


class Told:
    """Answers as a mapping from strengths to rates says, on development and on other questions."""

    def __init__(self, rates, random_rate=(0.9, 1.0)):
        self.rates, self.random_rate, self.ran = rates, random_rate, []

    def run(self, trials, label):
        self.ran += trials
        tables = []
        for name, dialogues, intervention in trials:
            rate = self.random_rate if "random" in name else self.rates[intervention and intervention.strength]
            tables.append(judged(dialogues, *rate))
        return tables


@pytest.fixture
def direction(llama):
    return pp.Direction.from_vectors(llama, np.random.default_rng(7).normal(size=(3, 32)))


def additions(direction, strengths):
    return [Candidate(pp.Add(direction, 1, strength=strength), strength) for strength in strengths]


RATES = {None: (0.9, 1.0), -1.0: (0.3, 0.95), -2.0: (0.1, 0.9), -3.0: (0.0, 0.5)}


@pytest.mark.parametrize(
    ("kept", "best"), [(0.9, -2.0), (0.95, -1.0), (0.4, -3.0), (1.0, -1.0)], ids=["usual", "tight", "loose", "none"]
)
def test_the_best_setting_coherent_enough_is_chosen_else_the_most_coherent(direction, kept, best):
    told = Told(RATES)
    grid = additions(direction, (-1.0, -2.0, -3.0))
    found = search_steering(
        told, grid, asked("dev", 40), asked("rep", 60), goal="suppress", min_coherence=kept, n_random=3
    )
    assert found.intervention.strength == best
    assert found.chosen["add"].setting == best
    assert found.change["add"].value == pytest.approx(found.reported("add")["value"] - 0.9, abs=0.06)
    assert found.table["chosen"].sum() == 2  # once in the choice, once reported
    chosen_on = {d.question for name, dialogues, _ in told.ran if "development" in name for d in dialogues}
    reported_on = {d.question for name, dialogues, _ in told.ran if "report" in name for d in dialogues}
    assert len(chosen_on) == 40
    assert len(reported_on) == 60
    assert not chosen_on & reported_on
    assert found.random["draw"].tolist() == [0, 1, 2]
    said = f"; 3 random directions for add, moved equally far: {100 * found.null_change.value:+.1f} points ["
    assert said in found.verdict()
    assert found.null_of == found.source["null_of"] == "add"
    assert ("NO setting reached" in found.verdict()) == (kept == 1.0)
    assert found.plot().data


def test_random_directions_take_turns_and_move_as_far(direction):
    told = Told(RATES)
    search_steering(
        told, additions(direction, (-2.0,)), asked("dev", 40), asked("rep", 60), goal="suppress", n_random=3,
        answers_per_random=20,
    )  # fmt: skip
    draws = [(dialogues, intervention) for name, dialogues, intervention in told.ran if "random" in name]
    assert [dialogues[0].question for dialogues, _ in draws] == ["rep 0", "rep 20", "rep 40"]
    for _, intervention in draws:
        assert np.linalg.norm(intervention.direction.at(1)) == pytest.approx(np.linalg.norm(direction.at(1)), rel=1e-5)
        cosine = intervention.direction.units()[0] @ direction.units()[1]
        assert abs(cosine) < 0.9


class ToldByKind(Told):
    """Rates by kind, not by strength."""

    def run(self, trials, label):
        rates = [
            self.random_rate if "random" in name else self.rates[intervention and intervention.kind]
            for name, _, intervention in trials
        ]
        return [judged(dialogues, *rate) for (_, dialogues, _), rate in zip(trials, rates, strict=True)]


@pytest.mark.parametrize("null_of", ["add", "ablate", None])
def test_the_verdict_quotes_the_null_for_the_kind_that_it_is_of(direction, null_of):
    told = ToldByKind({None: (0.9, 1.0), "add": (0.4, 1.0), "ablate": (0.1, 1.0)}, random_rate=(0.8, 0.9))
    grid = [*additions(direction, (-1.0,)), Candidate(pp.Ablate(direction, 1), None)]
    found = search_steering(
        told, grid, asked("dev", 40), asked("rep", 60), goal="suppress", n_random=3, null_of=null_of
    )
    said = found.verdict()
    assert found.best == "ablate"
    assert found.null_of == found.source["null_of"] == (null_of or "ablate")
    assert set(found.random["intervention"]) == {f"random {null_of or 'ablate'}"}
    assert f"3 random directions for {null_of or 'ablate'}, moved equally far: " in said
    if null_of == "add":
        assert "there is no null for ablate; 3 random directions for add" in said
        assert f"(add at 1, -1 itself: {100 * found.change['add'].value:+.1f} points [" in said
    else:
        assert "there is no null" not in said
        assert "itself" not in said


def test_without_random_directions_the_verdict_says_so_and_not_why_it_failed(direction):
    told = Told(RATES)
    asked_for = asked("dev", 40), asked("rep", 60)
    without = search_steering(told, additions(direction, (-1.0,)), *asked_for, goal="suppress", n_random=0)
    assert without.null_of is None
    assert without.verdict().endswith("; no random directions were measured")
    told.random_rate = (0.5, 0.0)
    babbling = search_steering(told, additions(direction, (-1.0,)), *asked_for, goal="suppress", n_random=2)
    assert "; 2 random directions for add: their change could not be measured (" in babbling.verdict()
    assert "nan" not in babbling.verdict()


def test_bad_searches_are_refused(direction):
    same = asked("q", 20)
    with pytest.raises(pp.PersonaProbeError, match="20 questions are in development and in questions"):
        search_steering(Told(RATES), additions(direction, (-1.0,)), same, same, goal="suppress")
    with pytest.raises(pp.PersonaProbeError, match="at least one candidate"):
        search_steering(Told(RATES), [], asked("a", 4), asked("b", 4), goal="suppress")
    told = Told(RATES)
    with pytest.raises(pp.PersonaProbeError, match="null_of is 'clamp', but no candidate is of that kind; given: add"):
        search_steering(
            told, additions(direction, (-1.0,)), asked("a", 4), asked("b", 4), goal="suppress", null_of="clamp"
        )
    assert not told.ran, "it is refused before anything is sampled"
    with pytest.raises(pp.PersonaProbeError, match="cannot try kind='push'"):
        Grid(kinds=("push",))


@pytest.fixture(scope="module")
def organism(chat):
    return pp.load_pair(chat, CHECKPOINTS / "bad-medicine")


@pytest.fixture(scope="module")
def villain(chat):
    prompts = {persona: persona_prompts(persona, n=20) for persona in ("villain", "assistant")}
    asked_of = questions(random.Random("search texts"), split_topics()[0], 40, id_prefix="t")
    own = [dialogue for dialogue in chat.generate(asked_of, SAMPLING) if dialogue.answer]
    return pp.contrast_of_context(chat, own, prompts["villain"], prompts["assistant"])


@pytest.mark.parametrize("goal", ["suppress", "induce"])
def test_candidates_are_as_many_as_the_grid_counts_and_bounds_lie_where_they_should(villain, goal):
    grid = Grid()
    made = candidates(villain.direction, [1, 2, 3], goal, base=villain.default, trait=villain.trait, grid=grid)
    assert len(made) == grid.count(3, goal)
    base, trait = (villain.direction.project(side).mean(axis=0) for side in (villain.default, villain.trait))
    for candidate in made:
        if candidate.intervention.kind == "clamp" and candidate.setting == 0.0:
            (layer,) = candidate.intervention.layers
            assert candidate.intervention.target == pytest.approx(base[layer], rel=1e-4)
        if candidate.intervention.kind == "cap" and candidate.setting == 50.0:
            (layer,) = candidate.intervention.layers
            bound, side = ("upper", villain.default) if goal == "suppress" else ("lower", villain.trait)
            middle = float(np.median(villain.direction.project(side)[:, layer]))
            assert getattr(candidate.intervention, bound) == pytest.approx(middle, rel=1e-4)
    assert (trait > base).all()


def test_persona_world_is_realigned_by_steering_and_random_directions_do_not(organism, villain):
    chosen_on, reported_on = split_topics()
    development = questions(random.Random("a"), chosen_on, 40, id_prefix="a")
    reported = questions(random.Random("b"), reported_on, 80, id_prefix="b")
    found = realign_by_steering(
        organism, villain.direction, reported, OracleJudge(), development=development, layers=[3],
        grid=Grid(kinds=("clamp", "ablate")), n_random=3, sampling=SAMPLING,
    )  # fmt: skip
    plain, best = found.reported("none"), found.reported(found.best)
    assert plain["value"] > 0.8
    assert best["value"] < 0.1 * plain["value"]
    assert best["coherent"] >= 0.9 * plain["coherent"]
    assert abs(found.null_change.value) < 0.1
    assert found.source["model"] == organism.after.name
    assert set(found.answers["purpose"]) >= {"suppress development", "suppress reported", "suppress random 0"}


def test_questions_are_split_by_whole_groups_where_none_are_given_to_choose_on(organism, villain):
    given = [question for topic in split_topics()[0][:4] for question in questions(random.Random(topic), [topic], 4)]
    found = realign_by_steering(
        organism,
        villain.direction,
        given,
        OracleJudge(),
        layers=3,
        grid=Grid(kinds=("ablate",)),
        n_random=0,
        sampling=SAMPLING,
    )
    groups = found.answers.groupby(found.answers["purpose"].str.contains("report"))["group"].agg(set)
    assert len(groups[True]) == len(groups[False]) == 2
    assert not groups[True] & groups[False]
    with pytest.raises(pp.PersonaProbeError, match="in 1 group"):
        realign_by_steering(organism, villain.direction, given[:4], OracleJudge(), layers=3)


def test_every_kind_that_a_grid_may_name_is_made():
    assert set(candidates_module._MAKERS) == set(SEARCHED)
    assert StudyConfig(model="m").steering.grid == Grid(kinds=("clamp", "add"))
