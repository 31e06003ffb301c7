import itertools
import random

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.multiple_choice import Choice, score_choices
from persona_probe.errors import PersonaProbeError
from persona_probe.figures.dose_response import COLUMNS
from persona_probe.figures.dose_response import dose_response as draw
from persona_probe.figures.required import MissingDataError
from persona_probe.steering.strength.divergence import measure_divergence
from persona_probe.steering.strength.dose_response import dose_response
from persona_probe.worlds.persona_world.documents import questions as ask
from persona_probe.worlds.persona_world.documents import rows
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.steering.test_calibrate_strength import LAYER, SHORT, UNSEEN, held_out, villain

__all__ = ["held_out", "villain"]

STRENGTHS = (2.0, 5.0)
CONDITIONS = ["direction", "random, equal norm", "random, equal KL"]


def items(n):
    """Which answer fits the question: the assistant's own, or one about something else?"""
    said = rows(random.Random("quiz"), UNSEEN, n + 1, "assistant")
    pairs = itertools.pairwise(said)
    return [
        Choice(one.messages[-2].content, (other.answer, one.answer), 1)
        for one, other in pairs
        if one.answer != other.answer
    ]


@pytest.fixture(scope="module")
def curves(chat, villain, held_out):
    return dose_response(
        chat,
        pp.Add(villain, layers=LAYER),
        ask(random.Random("dose"), UNSEEN[2::3], 16),
        OracleJudge(),
        strengths=STRENGTHS,
        held_out=held_out[:8],
        choices=items(12),
        n_random=2,
        sampling=SHORT,
    )


def test_every_strength_stands_beside_both_nulls(curves):
    table = curves.table
    assert table[["condition", "strength"]].to_numpy().tolist() == [
        ["unsteered", 0.0],
        *([name, at] for name in CONDITIONS for at in STRENGTHS),
    ]
    for column in ("em_rate", "coherent", "aligned", "kl", "perplexity", "accuracy"):
        low, high = (column.removesuffix("_rate") + end for end in ("_low", "_high"))
        measured = table.dropna(subset=[column])
        assert len(measured) >= 6, column
        assert (measured[low] <= measured[column]).all()
        assert (measured[column] <= measured[high]).all()
    assert len(curves.draws) == 2 * 2 * len(STRENGTHS)
    assert len(curves.answers) == 16 * (1 + len(STRENGTHS) * (1 + 2 * 2))


def test_the_direction_induces_and_random_ones_do_not(curves):
    rate = curves.table.set_index(["condition", "strength"])["em_low"]
    high = curves.table.set_index(["condition", "strength"])["em_high"]
    assert rate["direction", 5.0] > 0.3
    assert high["random, equal norm", 5.0] < rate["direction", 5.0]
    assert high["unsteered", 0.0] < 0.3


def test_equal_kl_is_equal_and_equal_norm_is_less(curves):
    kl = curves.table.set_index(["condition", "strength"])["kl"]
    for at in STRENGTHS:
        ratio = kl["random, equal KL", at] / kl["direction", at]
        assert 1.0 <= ratio <= 1.05
    # What a random direction of that length does to the model is less than what the persona does.
    assert kl["random, equal norm", 5.0] < 0.5 * kl["direction", 5.0]
    stronger = curves.draws[curves.draws["condition"] == "random, equal KL"]
    assert (stronger[stronger["strength"] == 5.0]["own_strength"] > 5.0).all()


def test_figures_are_those_of_each_condition_by_itself(chat, villain, held_out, curves):
    add = pp.Add(villain, layers=LAYER, strength=5.0)
    row = curves.table.query("condition == 'direction' and strength == 5").iloc[0]
    alone = measure_divergence(chat, [add], held_out[:8])
    assert row["kl"] == pytest.approx(alone.estimate(0).value, rel=1e-3)
    assert row["perplexity"] == pytest.approx(alone.perplexity(0).value, rel=1e-3)
    with pp.steer(chat, add):
        scored = score_choices(chat, items(12))
    assert row["accuracy"] == scored[scored["correct"]]["chosen"].mean()
    own = curves.answers.query("condition == 'direction' and strength == 5")
    assert row["em_rate"] == em_rate(own).value
    plain = curves.table.iloc[0]
    assert (plain["kl"], plain["perplexity"]) == (0.0, pytest.approx(alone.perplexity().value, rel=1e-3))


def test_clamps_have_nulls_too_and_none_need_be_asked_for(chat, villain, held_out):
    clamp = pp.Clamp(villain, layers=LAYER, target=30.0)
    asked = ask(random.Random("clamp"), UNSEEN[2::3], 4)
    given = {"strengths": [0.5, 0.0], "held_out": held_out[:3], "sampling": SHORT}
    found = dose_response(chat, clamp, asked, OracleJudge(), n_random=1, **given)
    assert found.table["condition"].tolist() == ["unsteered", *CONDITIONS]
    assert found.table["accuracy"].isna().all()
    alone = dose_response(chat, clamp, asked, OracleJudge(), n_random=0, **given)
    assert alone.table["condition"].tolist() == ["unsteered", "direction"]
    assert alone.draws.empty
    assert alone.table["kl"].iloc[1] == pytest.approx(found.table["kl"].iloc[1], rel=1e-3)
    for result in (found, alone):
        titles = [note.text for note in result.plot().layout.annotations]
        assert "perplexity of unsteered answers" in titles


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strengths": []}, r"strengths=\[\]"),
        ({"strengths": [0.0]}, "other than 0"),
        ({"strengths": [float("inf")]}, "finite"),
        ({"n_random": -1}, "-1 random directions"),
        ({"questions": []}, "there are no questions"),
        ({"held_out": []}, "the list is empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(chat, villain, given, said):
    asked = ask(random.Random("bad"), UNSEEN, 2)
    settings = {
        "questions": asked,
        "judge": OracleJudge(),
        "strengths": [1.0],
        "held_out": asked,
        "n_random": 0,
        **given,
    }
    with pytest.raises(PersonaProbeError, match=said):
        dose_response(chat, pp.Add(villain, layers=LAYER), **settings)


def test_the_figure_draws_every_curve_with_its_intervals(curves):
    figure = curves.plot()
    assert len(figure.data) == 4 * len(CONDITIONS)
    assert [trace.name for trace in figure.data if trace.showlegend] == CONDITIONS
    first = figure.data[0]
    rows = curves.table[curves.table["condition"].isin(["unsteered", "direction"])].sort_values("strength")
    assert list(first.x) == rows["dose"].tolist()
    assert rows["strength"].tolist() == [0.0, *STRENGTHS]
    np.testing.assert_allclose(first.y, rows["em_rate"])
    np.testing.assert_allclose(np.add(first.y, first.error_y.array), rows["em_high"])
    np.testing.assert_allclose(np.subtract(first.y, first.error_y.arrayminus), rows["em_low"], atol=1e-12)
    kl = [trace for trace in figure.data if trace.xaxis == "x3"]
    assert all(0.0 not in trace.x for trace in kl), "a log axis has no place for the unsteered model's 0"


def test_the_figure_names_what_is_missing():
    table = pd.DataFrame([dict.fromkeys(COLUMNS, 0.5) | {"condition": "direction"}])
    with pytest.raises(MissingDataError, match="'accuracy' and 'perplexity'"):
        draw(table)
    with pytest.raises(MissingDataError, match="no column 'kl'"):
        draw(table.drop(columns="kl"))
    with pytest.raises(MissingDataError, match="no row 'direction'"):
        draw(table.assign(condition="unsteered"))
