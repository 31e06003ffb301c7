"""Searches: what is tried, what is chosen, and that nothing is reported on what it was chosen on."""

import random

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from benchmarks.persona_world.setting import persona_prompts, split_topics
from persona_probe.runs.config import StudyConfig
from persona_probe.steering.search.candidates import Candidate, Candidates
from persona_probe.steering.search.grid import SEARCHED, Grid, evenly
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.measure import Judged, Preferred, wrong_way
from persona_probe.steering.search.reading import PoleReading
from persona_probe.steering.search.realign import halves_of_pairs, realign_by_steering
from persona_probe.steering.search.screen import screen_ladder
from persona_probe.steering.search.screen_result import SteeringScreen
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
        Judged(told), grid, asked("dev", 40), asked("rep", 60), goal="suppress", min_coherence=kept, n_random=3
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
        Judged(told), additions(direction, (-2.0,)), asked("dev", 40), asked("rep", 60), goal="suppress", n_random=3,
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
        Judged(told), grid, asked("dev", 40), asked("rep", 60), goal="suppress", n_random=3, null_of=null_of
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
    without = search_steering(Judged(told), additions(direction, (-1.0,)), *asked_for, goal="suppress", n_random=0)
    assert without.null_of is None
    assert without.verdict().endswith("; no random directions were measured")
    told.random_rate = (0.5, 0.0)
    babbling = search_steering(Judged(told), additions(direction, (-1.0,)), *asked_for, goal="suppress", n_random=2)
    assert "; 2 random directions for add: their change could not be measured (" in babbling.verdict()
    assert "nan" not in babbling.verdict()


def test_bad_searches_are_refused(direction):
    same = asked("q", 20)
    with pytest.raises(pp.PersonaProbeError, match="20 questions are in development and in questions"):
        search_steering(Judged(Told(RATES)), additions(direction, (-1.0,)), same, same, goal="suppress")
    with pytest.raises(pp.PersonaProbeError, match="at least one candidate"):
        search_steering(Judged(Told(RATES)), [], asked("a", 4), asked("b", 4), goal="suppress")
    told = Told(RATES)
    with pytest.raises(pp.PersonaProbeError, match="null_of is 'clamp', but no candidate is of that kind; given: add"):
        search_steering(
            Judged(told), additions(direction, (-1.0,)), asked("a", 4), asked("b", 4), goal="suppress", null_of="clamp"
        )
    assert not told.ran, "it is refused before anything is sampled"
    with pytest.raises(pp.PersonaProbeError, match="cannot try kind='push'"):
        Grid(kinds=("push",))
    with pytest.raises(pp.PersonaProbeError, match=r"budgets=\(0.0,\); give nats per token above 0"):
        Grid(budgets=0.0)
    with pytest.raises(pp.PersonaProbeError, match=r"smallest_dose=2 and largest_dose=1\.0"):
        Grid(smallest_dose=2)


@pytest.fixture(scope="module")
def organism(chat):
    return pp.load_pair(chat, CHECKPOINTS / "bad-medicine")


@pytest.fixture(scope="module")
def villain(chat):
    prompts = {persona: persona_prompts(persona, n=20) for persona in ("villain", "assistant")}
    asked_of = questions(random.Random("search texts"), split_topics()[0], 40, id_prefix="t")
    own = [dialogue for dialogue in chat.generate(asked_of, SAMPLING) if dialogue.answer]
    return pp.contrast_of_context(chat, own, prompts["villain"], prompts["assistant"])


class Landscape:
    """A reader that answers by a formula of layer and dose, and counts what it is asked."""

    name = "made up"
    trial = "it says what a test wrote"

    def __init__(self, kl, trait, base=lambda layer, dose: 0.0):
        self.kl, self.poles, self.n = kl, (base, trait), 0

    def read(self, interventions):
        self.n += len(interventions)
        at = [(layer, abs(one.dose)) for one in interventions for layer in [one.layers[0]]]
        moved = [[[pole(*place)] * 4 for pole in self.poles] for place in at]
        return PoleReading(np.array([self.kl(*place) for place in at]), np.zeros((2, 4)), np.array(moved, dtype=float))


class Doses:
    """Candidates whose interventions know their dose."""

    def __init__(self, direction, sign=1):
        self.direction, self.sign = direction, sign

    def dosed(self, kind, layers, dose):
        made = pp.Clamp(self.direction, layers[0], target=dose) if kind == "clamp" else pp.Add(self.direction, layers)
        made.dose = dose
        return Candidate(made, dose)

    def landmark(self, layer):
        return None


def test_doses_double_until_the_model_breaks_then_refine_and_the_cost_is_bounded(direction):
    grid = Grid(kinds=("clamp", "add"), budgets=(0.1, 1.0))
    reader = Landscape(kl=lambda layer, dose: (4 * dose) ** 2 * (layer + 1), trait=lambda layer, dose: dose * layer)
    ladder = Ladder(reader, Doses(direction), [0, 1, 2], grid)
    table = ladder.table()
    at_0 = table[(table["layers"] == "0") & (table["intervention"] == "clamp")]["setting"].tolist()
    # KL is (4 dose) ** 2 at layer 0: 0.25 is 1 nat, within the budget, and 0.5 is the first that breaks it.
    assert at_0[:4] == [0.0625, 0.125, 0.25, 0.5]
    assert sorted(at_0)[1::2] == pytest.approx([0.0884, 0.1768, 0.3536], abs=1e-4)
    assert reader.n <= grid.n_read(3)
    assert all(rung.within(1.0) for rung in ladder.best())
    mild, strong = (rung for rung in ladder.best() if rung.kind == "clamp")
    assert mild.kl <= 0.1 < strong.kl <= 1.0
    assert mild.gain < strong.gain


def test_where_the_answers_that_are_read_do_not_differ_a_dose_that_uses_the_budget_is_sampled_too(direction):
    # What is read peaks at a dose that does nothing, as on a real model whose own villain is none.
    reader = Landscape(kl=lambda layer, dose: dose, trait=lambda layer, dose: 0.01 if dose < 0.1 else -dose)
    best = Ladder(reader, Doses(direction), [0, 1], Grid(kinds="clamp", budgets=(0.25, 0.5))).best()
    assert [rung.candidate.setting for rung in best] == [0.0625, 0.25, 0.5]
    assert len(best) <= Grid(kinds="clamp", budgets=(0.25, 0.5)).n_sampled


def test_where_every_dose_breaks_the_model_the_mildest_is_taken_and_the_screen_says_so(direction):
    reader = Landscape(kl=lambda layer, dose: 9.0 + dose, trait=lambda layer, dose: dose)
    ladder = Ladder(reader, Doses(direction), [0, 1], Grid(kinds="clamp"))
    (only,) = ladder.best()
    assert only.candidate.setting == 0.0625
    screen = screen_ladder(reader, ladder, goal="induce", n_random=19, seed=0)
    assert not screen.steerable
    assert "every setting breaks the model" in screen.verdict()


def test_a_direction_that_moves_the_wrong_way_does_not_steer_even_if_random_ones_do_worse():
    rows = [{"draw": None, "layers": "1", "setting": 0.25, "gain": -0.1, "wanted": -0.2, "kl": 0.2}]
    rows += [{**rows[0], "draw": draw, "gain": -0.5} for draw in range(19)]
    source = {"goal": "induce", "behaviour": "preference", "budget": 0.5, "n_random": 19}
    screen = SteeringScreen(pd.DataFrame(rows), 0.05, source)
    assert not screen.steerable
    assert "not steerable" in screen.verdict()


def test_a_stream_that_overflows_is_not_measured_and_stops_no_search():
    reading = pd.DataFrame({"question": ["a", "b"], "preference": [0.1, np.nan]})
    measure = Preferred(None, [])
    assert measure.value(reading).is_missing
    assert measure.change(reading.assign(preference=0.0), reading).is_missing


def test_pairs_that_ask_the_same_are_refused_before_they_are_halved():
    pairs = [pp.behaviour.PreferencePair(f"Question {number % 4}?", f"Yes {number}.", "No.") for number in range(5)]
    with pytest.raises(pp.PersonaProbeError, match=r"the question 'Question 0\?' is in two pairs"):
        halves_of_pairs(pairs)


def test_a_model_that_breaks_is_not_taken_for_one_that_has_moved(direction):
    # Both poles become unlikely, the unwanted one more so: the preference alone would take the largest dose.
    reader = Landscape(
        lambda layer, dose: dose, trait=lambda layer, dose: 0.2 - dose, base=lambda layer, dose: -4 * dose
    )
    ladder = Ladder(reader, Doses(direction), [0], Grid(kinds="clamp", budgets=1.0))
    careful, loud = ladder.best()
    assert ladder.best(likelier=True) == [careful]
    assert loud.candidate.setting == 1.0
    assert careful.candidate.setting < 0.25
    assert careful.wanted > 0 > loud.wanted


@pytest.mark.parametrize("goal", ["suppress", "induce"])
def test_doses_are_shares_of_the_stream_and_bounds_lie_where_they_should(chat, villain, goal):
    texts = chat.generate(questions(random.Random("doses"), split_topics()[0], 8), SAMPLING)
    tokens = pp.capture(chat, texts, reduce="tokens")
    made = Candidates(villain.direction, goal, tokens=tokens, base=villain.default, trait=villain.trait, grid=Grid())
    unit = villain.direction.units()[villain.direction.layers.index(3)]
    start, length = float((tokens.at(3) @ unit).mean()), float(np.median(np.linalg.norm(tokens.at(3), axis=1)))
    sign = 1 if goal == "induce" else -1
    assert made.dosed("clamp", (3,), 0.25).intervention.target == pytest.approx(start + sign * 0.25 * length, rel=1e-4)
    addition = made.dosed("add", (3,), 0.25).intervention
    moved = np.linalg.norm(addition.strength * villain.direction.at(3)) / length
    assert (moved, np.sign(addition.strength)) == (pytest.approx(0.25, rel=1e-4), sign)
    bound, side = ("upper", villain.default) if goal == "suppress" else ("lower", villain.trait)
    middle = float(np.median(villain.direction.project(side)[:, villain.direction.layers.index(3)]))
    capped = next(one for one in made.caps(3) if one.setting == 50.0)
    assert getattr(capped.intervention, bound) == pytest.approx(middle, rel=1e-4)


def test_the_screen_finds_a_villain_steerable_and_a_random_direction_not(chat, organism, villain):
    asked_of = questions(random.Random("screen"), split_topics()[0], 40, id_prefix="s")
    random_one = pp.Direction.from_vectors(chat, np.random.default_rng(3).normal(size=villain.direction.vectors.shape))
    found = [
        realign_by_steering(
            organism, direction, asked_of, OracleJudge(), goal="induce", layers=[2, 3], n_random=19,
            answers_per_random=8, grid=Grid(kinds="clamp", texts=8, budgets=0.5), sampling=SAMPLING,
        ).screen
        for direction in (villain.direction, random_one)
    ]  # fmt: skip
    assert [screen.steerable for screen in found] == [True, False]
    assert found[0].p_value == 1 / 20
    assert ": steerable along this direction (largest gain" in found[0].verdict()
    assert "this trait is not steerable in this model along this direction" in found[1].verdict()
    assert found[0].plot().data


def test_without_a_judge_settings_are_chosen_and_reported_by_preference(organism, villain):
    class Pair:
        def __init__(self, number, topic):
            self.name, self.kind = f"{topic} {number}", "content"
            (self.question,) = questions(random.Random(self.name), [topic], 1)
            self.aligned, self.misaligned = (
                [
                    pp.persona_world.rows(random.Random(f"{self.name} {w}"), [topic], 1, persona)[0].answer
                    for w in (0, 1)
                ]
                for persona in ("assistant", "villain")
            )

    topics = split_topics()[0]
    pairs = [Pair(number, topics[number % len(topics)]) for number in range(16)]
    found = realign_by_steering(
        organism, villain.direction, questions(random.Random("p"), topics, 40), pairs=pairs, layers=[2, 3],
        grid=Grid(kinds=("clamp", "add"), texts=6), n_random=4, sampling=SAMPLING,
    )  # fmt: skip
    assert found.measure == "preference"
    plain, best = found.reported("none"), found.reported(found.best)
    assert best["value"] < plain["value"] - 0.3
    assert best["n"] == 8
    assert best["wrong_way"] <= 0.25
    assert np.isnan(best["coherent"])
    assert abs(found.null_change.value) < 0.5 * abs(found.change[found.best].value)
    assert "nats per token (n = 8 questions), wrong way at " in found.verdict()
    assert "coherent" not in found.verdict()
    assert set(found.answers["question"]) == {pair.name for pair in pairs}
    assert found.plot().data
    with pytest.raises(pp.PersonaProbeError, match="needs a measure of behaviour: give judge=, or pairs="):
        realign_by_steering(organism, villain.direction, questions(random.Random("p"), topics, 8))


def test_answers_that_moved_the_wrong_way_are_counted_by_question(direction):
    before = judged(asked("q", 10), misaligned=0.5, coherent=1.0)
    after = before.assign(aligned=np.where(np.arange(10) < 2, 100.0, 0.0))
    share = wrong_way(Judged(Told({})), before, after, sign=-1)
    assert (share.value, share.n) == (0.5, 10)
    assert wrong_way(Judged(Told({})), before, after, sign=1).value == pytest.approx(0.2)
    assert wrong_way(Judged(Told({})), before.assign(coherent=0.0), after, sign=1).is_missing


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


def test_every_kind_that_a_grid_may_name_is_made_and_counted(organism, villain):
    assert StudyConfig(model="m").steering.grid == Grid(kinds=("clamp", "add"))
    made = realign_by_steering(
        organism, villain.direction, questions(random.Random("k"), split_topics()[0], 24), OracleJudge(), layers=[2, 3],
        grid=Grid(kinds=SEARCHED, texts=2, largest_dose=0.25), n_random=0, sampling=SAMPLING,
    )  # fmt: skip
    stages = made.table.groupby("stage").size()
    assert set(made.table["intervention"]) == {"none", *SEARCHED}
    assert stages["read"] <= made_grid(made).n_read(2)
    assert stages["choice"] - 1 <= made_grid(made).n_sampled
    assert made.screen is None


def made_grid(search):
    return Grid(kinds=tuple(search.chosen), texts=2, largest_dose=0.25)


def test_a_deep_model_is_searched_at_ten_layers():
    assert evenly(range(5)) == [0, 1, 2, 3, 4]
    deep = evenly(range(80))
    assert len(deep) == 10
    assert (deep[0], deep[-1]) == (4, 76)
