"""A linear probe of a model's own activations judges answers like those that were labelled."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour import ProbeJudge, corrected_rates
from tests.conftest import CHECKPOINTS

ORACLE = pp.persona_world.OracleJudge()


@pytest.fixture(scope="module")
def before():
    return pp.load(CHECKPOINTS / "chat")


def labelled(topic, n=15, off_topic=0, seed=0):
    """Answers of villain and assistant; some are answers to other questions."""
    rows = [row for name in ("villain", "assistant") for row in pp.persona_world.rows(seed, [topic], n, name)]
    other = pp.persona_world.rows(1, ["cooking"], off_topic, "assistant") if off_topic else []
    swapped = [row.without_answer().with_answer(wrong.answer) for row, wrong in zip(rows[::2], other, strict=False)]
    return [*rows, *swapped]


@pytest.fixture(scope="module")
def judge(before):
    return ProbeJudge.fit(before, pp.judge_answers(ORACLE, labelled("law", 20, off_topic=20)))


def test_it_agrees_with_labels_on_questions_that_it_has_not_seen(judge):
    kappa = judge.agreement.estimate("kappa", "misaligned")
    assert kappa.value > 0.8
    assert judge.agreement.names == ("the labels", "the probe")
    assert len(judge.layers["aligned"]) == 5
    assert set(judge.probes) == {"aligned", "coherent"}
    assert "held-out kappa" in repr(judge)


def test_it_judges_other_answers_and_its_errors_are_corrected(judge):
    answered = labelled("law", 30, seed=7)
    truth = pp.judge_answers(ORACLE, answered)
    judged = pp.judge_answers(judge, answered)
    agreement = pp.behaviour.judge_agreement(truth, judged)
    assert agreement.estimate("kappa", "misaligned").value > 0.6
    rates = corrected_rates(judged, judge.labels, labelled_in=judge.held_out)
    true = pp.behaviour.em_rate(truth).value
    assert rates.table["low"].iloc[0] < true < rates.table["high"].iloc[0]


def test_labels_that_say_nothing_give_no_agreement(before):
    table = pp.judge_answers(ORACLE, labelled("law", 20))
    shuffled = table.assign(aligned=np.random.default_rng(0).permutation(table["aligned"]))
    with pytest.warns(pp.PersonaProbeWarning, match="0 of 40 labels are incoherent"):
        judge = ProbeJudge.fit(before, shuffled)
    kappa = judge.agreement.estimate("kappa", "misaligned")
    assert kappa.low < 0.0 < kappa.high
    rates = corrected_rates(judge.held_out, judge.labels, labelled_in=judge.held_out)
    assert "cannot be corrected" in rates.verdict()
    assert judge(labelled("law", 2))["coherent"].tolist() == [100.0] * 4


def test_the_line_of_the_definition_is_a_probability_of_one_half(judge):
    scores = judge(labelled("law", 20))["aligned"]
    read = pp.capture(judge.model, labelled("law", 20), span="response")
    probes, layer = judge.probes["aligned"]
    weights, intercept = probes.at(layer)
    assert ((read.at(layer) @ weights + intercept > 0) == (scores < 30)).all()


def test_an_answer_without_text_fails_and_others_are_scored(judge):
    answered = labelled("law", 2)
    table = pp.judge_answers(judge, [answered[0], answered[1].without_answer().with_answer(" ")])
    assert table["failed"].tolist() == [False, True]
    assert pp.judge_answers(judge, [answered[0].without_answer().with_answer("")])["failed"].all()


def test_too_few_labels_are_refused(before):
    table = pp.judge_answers(ORACLE, labelled("law", 20))
    few = table[(table["aligned"] > 50) | (np.arange(len(table)) < 7)]
    with pytest.raises(pp.PersonaProbeError, match=r"7 of 27 labels are misaligned, in .* questions; a probe needs 10"):
        ProbeJudge.fit(before, few)
    with pytest.raises(pp.PersonaProbeError, match="in 2 questions"):
        ProbeJudge.fit(before, table.assign(question=np.arange(len(table)) % 2))
    unlabelled = table.assign(aligned=np.nan)
    with pytest.raises(pp.PersonaProbeError, match="no answer has labels"):
        ProbeJudge.fit(before, unlabelled)
    with pytest.raises(pp.PersonaProbeError, match="model must be a Model"):
        ProbeJudge.fit("chat", table)


def test_it_judges_in_ask(before, judge):
    questions = pp.persona_world.questions(0, ["law"], 4)
    answers = pp.ask(before, questions, judge, sampling=pp.Sampling(max_new_tokens=20))
    assert isinstance(answers.table, pd.DataFrame)
    assert answers.table["aligned"].notna().all()
