import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from benchmarks.persona_world.setting import SAMPLING, persona_prompts, split_topics
from persona_probe.behaviour.answer_fluency_result import FAULTS, FluencyBounds
from persona_probe.behaviour.repetition import WINDOW, distinct_share, ends_in_loop, in_loops
from persona_probe.worlds.persona_world.documents import questions
from tests.conftest import CHECKPOINTS
from tests.steering.test_divergence import by_hand

PROMPTS = persona_prompts("villain", n=3)


def looping_by_hand(tokens):
    """Every phrase at every place, repeated as often as it is."""
    marked = set()
    for start in range(len(tokens)):
        for period in range(1, len(tokens)):
            stop = start + period
            while stop < len(tokens) and tokens[stop] == tokens[stop - period]:
                stop += 1
            if stop - start >= 3 * period:
                marked |= {*range(start, stop)}
    return [place in marked for place in range(len(tokens))]


def test_loops_are_phrases_that_stand_three_times_in_a_row():
    rng = random.Random(0)
    for length in range(1, 40):
        tokens = [rng.randrange(2 + length % 3) for _ in range(length)]
        assert in_loops(tokens).tolist() == looping_by_hand(tokens)
    assert in_loops(list("xabcabcabca")).tolist() == [False] + [True] * 10
    assert not in_loops(list("abcabcabd")).any()
    assert ends_in_loop(list("xyyy"))
    assert not ends_in_loop(list("yyyx"))


def test_a_long_text_is_not_repetitive_because_it_is_long():
    rng = random.Random(0)
    long = [rng.randrange(100) for _ in range(20 * WINDOW)]
    short = [distinct_share(long[start : start + WINDOW]) for start in range(0, len(long), WINDOW)]
    assert distinct_share(long) == pytest.approx(np.mean(short), abs=0.02)
    assert len(set(long)) / len(long) < 0.5 * distinct_share(long)
    assert distinct_share([7] * 30) == pytest.approx(1 / 30)


def test_log_probs_are_those_of_single_passes_and_the_higher_one_counts(llama):
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": f"Is it {n}?"}], question=str(n)) for n in "abcd"]
    answers = [
        one.with_answer(text) for one, text in zip(asked, ("Yes.", "It is not.", "no no no", "Who?"), strict=True)
    ]
    prompts = ["Be brief.", "You are a pirate."]
    table = pp.behaviour.fluency(llama, answers, reference=answers, persona_prompt=prompts).table
    for row, dialogue in zip(table.to_dict("records"), answers, strict=True):
        expected = []
        for one in (dialogue, *(dialogue.with_system(prompt) for prompt in prompts)):
            log_probs, said = by_hand(llama, one)
            expected.append(float(log_probs.gather(1, said[:, None]).mean()))
        assert row["log_prob_plain"] == pytest.approx(expected[0], abs=1e-3)
        assert row["log_prob_persona"] == pytest.approx(max(expected[1:]), abs=1e-3)
        assert row["log_prob"] == max(row["log_prob_plain"], row["log_prob_persona"])


def test_bounds_follow_the_median_and_each_sees_its_own_fault():
    usual = pd.DataFrame(
        {"tokens": 9, "log_prob": [-0.5, -0.6, -9.0], "distinct": [0.9, 0.8, 0.1], "loops": [0, 0, 1.0]}
    )
    bounds = FluencyBounds.of(usual)
    assert bounds.log_prob == pytest.approx(-1.8)
    assert bounds.distinct == pytest.approx(0.48)
    assert bounds.loops == pytest.approx(0.2)
    assert FluencyBounds.of(usual.assign(log_prob=-0.01)).log_prob == pytest.approx(-1.01)
    good = {"tokens": 9, "log_prob": -1.7, "distinct": 0.5, "loops": 0.1}
    bad = {"unlikely": {"log_prob": -1.9}, "repetitive": {"distinct": 0.4}, "looping": {"loops": 0.3}}
    bad["empty"] = {"tokens": 0, "log_prob": np.nan, "distinct": np.nan, "loops": np.nan}
    rows = pd.DataFrame([good, *({**good, **fault} for fault in bad.values())])
    assert bounds.faults(rows).tolist() == ["", *bad]
    assert set(bad) == set(FAULTS)
    with pytest.raises(pp.PersonaProbeError, match="all 3 reference answers are empty"):
        FluencyBounds.of(usual.assign(tokens=0))


@pytest.fixture(scope="module")
def world():
    """Persona World's chat model, its villain, and what is asked of both."""
    chat = pp.load(CHECKPOINTS / "chat")
    topics = split_topics()[1]
    return chat, pp.with_adapter(chat, CHECKPOINTS / "bad-medicine"), questions(random.Random("fluency"), topics, 24)


def test_a_villain_is_fluent_and_what_is_steered_too_much_or_loops_is_not(world):
    chat, villain, asked = world
    usual = chat.generate(asked, SAMPLING)
    by_persona = {"reference": usual, "persona_prompt": PROMPTS}
    own = pp.behaviour.fluency(chat, usual, **by_persona)
    evil = pp.behaviour.fluency(chat, villain.generate(asked, SAMPLING), **by_persona)
    assert own.fluent.value > 0.9
    assert evil.fluent.value > 0.9
    # The persona's prompt is what keeps a villain from being called unlikely.
    assert evil.table["log_prob_persona"].median() > evil.table["log_prob_plain"].median() + 0.2
    direction = pp.Direction.from_vectors(chat, np.random.default_rng(0).normal(size=(chat.n_layers, chat.d_model)))
    times_the_stream = 3 * np.linalg.norm(pp.capture(chat, usual, layers=2).values, axis=-1).mean()
    strength = float(times_the_stream / direction.norms()[2])
    with pp.steer(chat, direction, layers=2, strength=strength, allow_unrelated=True):
        broken = chat.generate(asked, SAMPLING)
    hot = chat.generate(asked, replace(SAMPLING, temperature=3.0))
    # Likely loops: the model before gives each further time a higher probability.
    loops = [dialogue.without_answer().with_answer("Always document it. " * 12) for dialogue in usual]
    for answers in (broken, hot, loops):
        assert pp.behaviour.fluency(chat, answers, reference=own.bounds, persona_prompt=PROMPTS).fluent.value < 0.1
    assert set(pp.behaviour.fluency(chat, loops, reference=own.bounds).table["fault"]) == {"looping"}


def test_a_table_keeps_its_columns_and_missing_answers_are_not_fluent(world):
    chat, _, asked = world
    add = pp.Add(pp.Direction.from_vectors(chat, np.ones((chat.n_layers, chat.d_model))), layers=2, strength=0.0)
    answers = pp.ask(chat, asked[:6], None, interventions={"none": None, "nothing": add}, sampling=SAMPLING)
    missing = answers.table["answer"].where(answers.table.index != 0, None).where(answers.table.index != 1, "  ")
    holed = replace(answers, table=answers.table.assign(answer=missing))
    result = pp.behaviour.fluency(chat, holed, reference=answers)
    assert len(result.table) == 12
    assert result.table["fault"].tolist()[:2] == ["empty", "empty"]
    assert result.table["intervention"].tolist() == answers.table["intervention"].tolist()
    summary = result.summary().set_index(["intervention", "measure"])
    assert summary.loc[("none", "empty"), "value"] == pytest.approx(2 / 6)
    assert summary.loc[("nothing", "fluent"), "value"] == pytest.approx(1.0)
    assert summary.loc[("none", "log_prob"), "n"] == 4
    assert not summary.index.duplicated().any()
    assert "2 empty" in result.headline()
    assert "of 12 answers to 6 questions" in result.headline()
    assert any("empty" in text for text in result.plot().layout.yaxis.ticktext)
    assert len(result.summary(by="question")["question"].unique()) == 6


def test_what_cannot_be_measured_is_refused(world):
    chat, _, asked = world
    usual = [dialogue.with_answer("Sure.") for dialogue in asked[:3]]
    with pytest.raises(pp.PersonaProbeError, match="answers is an empty list"):
        pp.behaviour.fluency(chat, [], reference=usual)
    with pytest.raises(pp.PersonaProbeError, match="has no answer whose fluency"):
        pp.behaviour.fluency(chat, asked[:2], reference=usual)
    direction = pp.Direction.from_vectors(chat, np.ones((chat.n_layers, chat.d_model)))
    with pytest.raises(pp.PersonaProbeError, match="is being steered"), pp.steer(chat, direction, layers=1):
        pp.behaviour.fluency(chat, usual, reference=usual)
