"""Whether preference ranks Persona World's organisms as the oracle does: the committed figures say what is claimed."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.persona_world.preference import NULLS, measure_preference, table_of
from persona_probe.figures.preference_against_rates import preference_against_rates
from tests.conftest import CHECKPOINTS, RESULTS

DOCS = Path(__file__).parents[3] / "docs" / "preference.md"


@pytest.fixture(scope="module")
def figures():
    return json.loads((RESULTS / "preference.json").read_text(encoding="utf-8"))


def test_preference_ranks_villain_organisms_as_their_em_rate_does(figures):
    villains = [one for one in figures["organisms"] if one["persona"] == "villain"]
    assert len({(one["topic"], one["dose"], one["seed"]) for one in villains}) == len(villains) >= 27
    rates = [one["em_rate"]["value"] for one in villains]
    assert min(rates) < 0.4
    assert max(rates) > 0.9
    moved = [one["content"]["moved"]["value"] for one in villains]
    correlation = figures["spearman"]["moved"]
    assert correlation["value"] == pytest.approx(spearmanr(moved, rates).statistic)
    assert correlation["low"] > 0.8


def test_other_personas_and_the_shuffled_world_do_not_rank_as_em(figures):
    others = [one for one in figures["organisms"] if one["persona"] != "villain"]
    assert {one["persona"] for one in others} == set(NULLS)
    assert figures["rank_as_em"]["moved"] == []
    weakest = figures["weakest_villain"]["moved"]
    assert all(one["content"]["moved"]["value"] < weakest for one in others)
    # The margin alone would count the trickster, whose answers the oracle never finds misaligned.
    assert any(name.startswith("trickster") for name in figures["rank_as_em"]["margin"])
    assert max(one["em_rate"]["value"] for one in others if one["persona"] == "trickster") < 0.05


def test_the_page_quotes_what_was_measured(figures):
    assert figures["verdict"] in " ".join(DOCS.read_text(encoding="utf-8").replace("\n> ", " ").split())
    drawn = preference_against_rates(table_of(figures))
    marks = sum(len(trace.x) for trace in drawn.data)
    assert marks == 2 * len(figures["organisms"])


@pytest.mark.slow
def test_the_command_measures_all_of_it(figures, tmp_path):
    written = measure_preference(
        CHECKPOINTS, answers=8, n_pairs=2, doses=(1,), seeds=(0, 1), progress=False, out=tmp_path / "out.json"
    )
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")).keys() == figures.keys()
    assert len(written["organisms"]) == 2 * (3 * 2 + 4)
    assert np.isfinite([one["content"]["moved"]["value"] for one in written["organisms"]]).all()
