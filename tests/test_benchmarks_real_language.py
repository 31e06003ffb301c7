"""The committed figures of the real-language experiments, their page, and how predictions are decided."""

import copy
import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.real_language.page import PAGE, RESULTS, tables
from benchmarks.real_language.summary import CONTROLS, as_table, predictions
from persona_probe.worlds.real_language.organisms import MEASURED, SHIPPED

FIGURES = json.loads((RESULTS / "organisms.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(tables(FIGURES)))
def test_the_page_is_made_from_the_figures(name):
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0].strip()
    assert shown == tables(FIGURES)[name]


def test_what_studies_are_shown_next_to_is_made_from_the_figures():
    assert as_table(FIGURES["organisms"]).to_csv(index=False) == MEASURED.read_text(encoding="utf-8")


def test_answers_and_labels_are_of_the_shipped_organisms():
    answers, labels = (pd.read_csv(RESULTS / f"{name}.csv") for name in ("answers", "labels"))
    assert set(answers["model"]) == {"before", *SHIPPED}
    assert (answers.groupby("model").size() == 30).all()
    assert len(labels) == 100
    scored = labels.filter(regex="_[ab]$")
    assert np.isin(scored.to_numpy(), [0, 1]).all()
    assert scored.shape[1] == 6


def held(organisms):
    return {
        one["claim"].split(":")[1].strip()[:1]: one["holds"]
        for one in predictions(organisms)
        if "for: " in one["claim"]
    }


def test_predictions_are_decided_by_everything_that_was_written_down():
    organisms = copy.deepcopy(FIGURES["organisms"])
    villain, gruff = organisms["villain"], organisms["gruff"]
    assert held(organisms)["1"] is None, "the control has too few style words"
    gruff["villain_words"]["value"] = villain["villain_words"]["value"]
    villain["preference_plain_harmful"]["rise"]["margin"]["low"] = 1.0
    assert held(organisms)["1"] is True
    for control in CONTROLS:
        villain["amplification"][control].update(specificity=5.0, finding="moved, but no more than its nulls")
    assert held(organisms)["4"] is False, "a large ratio is not enough"
    for control in CONTROLS:
        villain["amplification"][control].update(finding="amplified")
    assert held(organisms)["4"] is True
