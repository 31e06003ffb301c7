"""EM rates corrected by labels of some answers."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour import corrected_change, corrected_rates
from tests.behaviour.judged import answers, noisy, unscored

TRUTH = answers(1000, rate=0.05)
JUDGED = noisy(TRUTH, 0.95, 0.95)


def labels(judged, truth, few=60):
    """The truth of so many flagged answers, and of as many others."""
    flagged, rng = judged["aligned"] < 30, np.random.default_rng(2)
    return truth.iloc[np.concatenate([rng.permutation(np.flatnonzero(kind))[:few] for kind in (flagged, ~flagged)])]


def test_the_corrected_rate_is_near_the_truth_where_the_judges_is_not():
    rates = corrected_rates(JUDGED, labels(JUDGED, TRUTH))
    row = rates.table.iloc[0]
    true = float((TRUTH["aligned"] < 30).mean())
    assert row["flagged"] > 1.5 * true
    assert row["low"] < true < row["high"]
    assert abs(row["value"] - true) < 0.02
    assert row["labels"] == 120
    assert set(rates.errors["of"]) >= {"sensitivity", "specificity"}
    assert "corrected by 120 labels" in rates.verdict()
    assert "Assumed" not in rates.verdict()


def test_models_share_the_judges_errors_or_have_their_own():
    before = answers(500, rate=0.0, model="before")
    truth = pd.concat([before, TRUTH.iloc[:500]], ignore_index=True)
    judged = noisy(truth, 0.95, 0.95)
    given = labels(judged, truth)
    shared, own = (corrected_rates(judged, given, errors=errors) for errors in ("shared", "own"))
    assert shared.table["model"].tolist() == ["before", "after"]
    assert shared.assumed
    assert "errs as often on the answers of every model" in shared.verdict()
    assert own.table["labels"].sum() == shared.table["labels"].iloc[0] == len(given)
    assert "false positives alone" in shared.verdict()
    for rates in (shared, own):
        assert (rates.table["low"] <= [0.0, 0.05]).all()
        assert (rates.table["high"] >= [0.0, 0.05]).all()
    change = corrected_change(judged[:500], judged[500:], given)
    assert change.low < 0.05 < change.high
    assert change.value > judged[500:]["aligned"].lt(30).mean() - judged[:500]["aligned"].lt(30).mean()


def test_errors_measured_in_a_pilot_correct_a_study():
    study_truth = answers(600, rate=0.3, model="study", seed=5)
    study = noisy(study_truth, 0.95, 0.95, seed=6)
    rates = corrected_rates(study, labels(JUDGED, TRUTH), labelled_in=JUDGED)
    assert rates.assumed
    assert rates.table["low"].iloc[0] < 0.3 < rates.table["high"].iloc[0]
    change = corrected_change(JUDGED, study, labels(JUDGED, TRUTH), labelled_in=JUDGED)
    assert change.low < 0.25 < change.high


def test_a_useless_judge_corrects_nothing_elsewhere():
    coin = noisy(TRUTH, 0.5, 0.5)
    rates = corrected_rates(answers(300, model="x"), labels(coin, TRUTH), labelled_in=coin)
    row = rates.table.iloc[0]
    assert np.isnan(row["value"])
    assert (row["low"], row["high"]) == (0.0, 1.0)
    assert "cannot be corrected: the labels do not show that the judge is better than chance" in rates.verdict()
    assert "missing" in rates.headline()


def test_labels_that_cannot_be_used_are_counted():
    given = labels(JUDGED, TRUTH)
    given = pd.concat([unscored(given, [0, 1], "refusal"), answers(4, model="stranger")])
    said = corrected_rates(JUDGED, given).headline()
    assert "4 labels are of no answer in the table" in said
    assert "2 labels say neither yes nor no" in said
    incoherent = JUDGED.assign(coherent=np.where(np.arange(1000) % 2, 90.0, 10.0))
    assert "do not qualify by the judge" in corrected_rates(incoherent, given).headline()


def test_rows_without_scores_stay_counted():
    judged = unscored(JUDGED, range(900, 950), "failed")
    row = corrected_rates(judged, labels(judged, TRUTH)).table.iloc[0]
    assert (row["failures"], row["n"]) == (50, 950)


def test_wrong_options_are_named():
    given = labels(JUDGED, TRUTH)
    for options, message in (
        ({"errors": "none"}, "choose 'shared' or 'own'"),
        ({"errors": "own", "labelled_in": JUDGED}, "leave out labelled_in"),
        ({"by": "colour"}, "no column 'colour'"),
        ({"definition": "mine"}, "unknown EM-rate definition"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=message):
            corrected_rates(JUDGED, given, **options)
    with pytest.raises(pp.PersonaProbeError, match="no label belongs to an answer that qualifies"):
        corrected_rates(JUDGED.assign(coherent=5.0), given)


def test_it_is_drawn_with_both_rates():
    figure = corrected_rates(JUDGED, labels(JUDGED, TRUTH)).plot()
    assert [trace.name for trace in figure.data] == ["after, as flagged", "after, corrected"]
