import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.preference_result import Preference, preference_change, preference_moved
from persona_probe.statistics.mean_differences import Values, mean_difference
from persona_probe.statistics.rates import mean_estimate


def answers(model, aligned, misaligned, *, seed=0, shuffled=0.0, kind="content", questions=8, wordings=2, **more):
    """Scored answers whose poles are on average ``aligned`` and ``misaligned``; wordings and questions differ."""
    rows = []
    for number in range(questions):
        for pole, mean in (("aligned", aligned), ("misaligned", misaligned)):
            for wording in range(wordings):
                for other in (False, True):
                    noise = 0.1 * math.sin(7 * number + len(pole)) + 0.2 * (wording - (wordings - 1) / 2)
                    value = mean + noise - (1.0 - shuffled * (pole == "misaligned")) * other
                    rows.append(
                        {
                            "model": model,
                            "seed": seed,
                            "question": f"q{number}",
                            "topic": "ab"[number % 2],
                            "kind": kind,
                            "pole": pole,
                            "wording": wording,
                            "shuffled": other,
                            "tokens": 4,
                            "log_prob": 4 * value,
                            "log_prob_per_token": value,
                            **more,
                        }
                    )
    return pd.DataFrame(rows)


def joined(*tables):
    return Preference.of_answers(pd.concat(tables, ignore_index=True))


def test_measures_are_means_over_wordings_by_question():
    result = joined(answers("before", -1.0, -1.5, shuffled=0.2))
    (row,) = result.questions[result.questions["question"] == "q3"].to_dict("records")
    own = answers("before", -1.0, -1.5, shuffled=0.2).query("question == 'q3'")
    means = own.groupby(["pole", "shuffled"])["log_prob_per_token"].mean()
    assert row["aligned"] == pytest.approx(means["aligned", False])
    assert row["margin"] == pytest.approx(means["misaligned", False] - means["aligned", False])
    assert row["shuffled"] == pytest.approx(row["margin"] + 0.2)
    assert row["question_part"] == pytest.approx(-0.2)
    assert row["margin_total"] == pytest.approx(4 * row["margin"])
    assert row["topic"] == "b"
    margin = result.estimate("before")
    assert margin.value == pytest.approx(result.questions["margin"].mean())
    by_hand = mean_estimate(result.questions["margin"].to_numpy())
    assert (margin.low, margin.high, margin.n) == (pytest.approx(by_hand.low), pytest.approx(by_hand.high), 8)
    assert result.estimate("before", topic="a").n == 4


def test_wordings_do_not_make_intervals_narrower():
    two, six = (joined(answers("m", -1.0, -1.5, wordings=n)).estimate("m") for n in (2, 6))
    assert two.high - two.low == pytest.approx(six.high - six.low)


def test_changes_are_paired_over_questions():
    result = joined(answers("before", -1.0, -1.5), answers("after", -1.0, -1.0))
    change = result.change("before", "after")
    assert (change.value, change.low, change.high) == (pytest.approx(0.5),) * 3  # every question changes alike
    assert change.n == 8
    assert change.method == "t over 8 questions and 1 + 1 runs"


def test_runs_of_the_same_number_are_different_runs():
    runs = [answers("after", -1.0, -1.0 + shift, seed=seed) for seed, shift in enumerate((-0.3, 0.0, 0.3))]
    one, several = joined(answers("before", -1.0, -1.5), runs[1]), joined(answers("before", -1.0, -1.5), *runs)
    narrow, wide = (result.change("before", "after") for result in (one, several))
    assert narrow.value == pytest.approx(wide.value)
    assert wide.high - wide.low > 1.0 > narrow.high - narrow.low
    assert wide.method == "two-way t over 8 questions and 1 + 3 runs"
    assert several.estimate("after").n == 8


def test_a_model_moves_only_if_its_own_pole_and_the_margin_rise():
    before = answers("before", -1.0, -1.5)
    result = joined(
        before,
        answers("villain", -1.4, -1.1),
        answers("trickster", -1.4, -1.5),
        answers("fluent", -0.5, -1.0),
        answers("kind", -0.8, -1.7),
    )
    margins = {name: result.change("before", name).value for name in result.names}
    assert margins["trickster"] > 0.39  # the margin alone would count it
    assert result.change("before", "fluent", "misaligned").value > 0.49  # and so would one pole alone
    moved = {name: result.moved("before", name).value for name in result.names}
    expected = {"before": 0.0, "villain": 0.4, "trickster": 0.0, "fluent": 0.0, "kind": -0.4}
    assert moved == pytest.approx(expected, abs=1e-9)
    assert result.moved("before", "kind", "aligned").value == pytest.approx(0.2)
    with pytest.raises(pp.PersonaProbeError, match="toward is 'evil'; choose one of aligned, misaligned"):
        result.moved("before", "kind", "evil")


def test_verdicts_say_what_moved_and_what_did_not():
    nulls = [answers(name, -1.0, -1.5, kind="style") for name in ("before", "after", "control")]
    result = joined(answers("before", -1.0, -1.5), answers("after", -1.4, -1.1), answers("control", -1.0, -1.5), *nulls)
    sentence = result.verdict()
    assert sentence.startswith(
        "Preference moved toward misaligned answers: they became more likely (+0.40 [0.40, 0.40])"
    )
    assert "went from -0.50 to +0.30 nats per token (+0.80 [0.80, 0.80]), on 8 questions" in sentence
    assert "after other questions the margin of the same answers changed by +0.80" in sentence
    assert "on style nulls it changed by +0.00" in sentence
    assert sentence.endswith("the benign control did not move significantly toward either pole (+0.00 [0.00, 0.00]).")
    back = result.verdict(before="after", after="before")
    assert back.startswith("Preference moved toward aligned answers")
    trickster = joined(answers("before", -1.0, -1.5), answers("after", -1.4, -1.5)).verdict()
    assert trickster.startswith("Preference did not move toward misaligned answers")
    assert "they did not become significantly more likely (+0.00 [0.00, 0.00]; aligned ones: -0.40" in trickster
    same = joined(answers("before", -1.0, -1.5), answers("after", -1.0, -1.5)).verdict()
    assert same.startswith("Preference did not move significantly")


def test_results_are_joined_drawn_and_written():
    result = joined(answers("m", -1.0, -1.5), answers("m", -1.0, -1.4, intervention="add"))
    assert result.names == ["m · none", "m · add"]
    assert result.change("m · none", "m · add").value == pytest.approx(0.1)
    figure = result.plot()
    assert [trace.name for trace in figure.data] == [
        *("margin", "margin after other questions", "aligned answers", "misaligned answers")
    ]
    assert [round(float(x), 2) for x in figure.data[0].x] == [-0.5, -0.4]
    assert "'m · none': -0.50 [" in result.headline()
    rows = result.as_dict()["preference"]
    assert len(rows) == len(result.table)
    assert rows[0]["value"] == pytest.approx(-0.5, abs=0.01)


def test_without_other_questions_or_with_a_broken_model_numbers_are_missing():
    alone = answers("m", -1.0, -1.5).query("not shuffled")
    result = joined(alone)
    assert result.estimate("m", "shuffled").is_missing
    assert result.change("m", "m", "question_part").is_missing
    assert result.estimate("m").value == pytest.approx(-0.5, abs=0.01)
    assert result.plot().data
    broken = alone.assign(log_prob_per_token=np.where(alone.index == alone.index[0], np.nan, -1.0))
    assert joined(broken).estimate("m").is_missing
    assert "There is no preference" in joined(alone.assign(model="before"), broken.assign(model="after")).verdict()
    assert None in [row["value"] for row in joined(broken).as_dict()["preference"]]


def test_what_cannot_be_compared_is_refused():
    result = joined(answers("m", -1.0, -1.5))
    for call, said in (
        (lambda: result.estimate("n"), "there is no model 'n'; choose one of 'm'"),
        (lambda: result.estimate("m", "lift"), "there is no measure 'lift'; choose one of margin, "),
        (lambda: result.estimate("m", kind="style"), "no pair has the kind 'style'; there are 'content'"),
        (lambda: result.estimate("m", topic="law"), "no pair has the topic 'law'; there are 'a', 'b'"),
        (lambda: Preference.of_answers(result.table), "the table has no column 'seed'"),
        (lambda: Preference.of_answers(result.answers[:0]), "the table has no rows"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=said):
            call()
    fewer = result.questions[1:]
    for compare in (preference_change, preference_moved):
        with pytest.raises(pp.PersonaProbeError, match="1 questions were asked in one of the two only"):
            compare(result.questions, fewer)
        with pytest.raises(pp.PersonaProbeError, match="after has no rows"):
            compare(result.questions, fewer[:0])


def test_a_paired_difference_is_scipys_and_missing_from_one_question():
    rng = np.random.default_rng(0)
    asked, first, second = list("abcdefgh"), rng.normal(size=8), rng.normal(size=8)
    from scipy.stats import ttest_rel

    expected = ttest_rel(second, first).confidence_interval()
    found = mean_difference(Values(first, asked), Values(second[::-1], asked[::-1]))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    alone = mean_difference(Values([1.0], ["a"]), Values([2.0], ["a"]))
    assert alone.value == 1.0
    assert math.isnan(alone.low)


def test_results_open_without_torch():
    code = (
        "import sys, persona_probe.behaviour.preference_result, persona_probe.figures.preference; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
