from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from persona_probe.figures.amplification import amplification
from persona_probe.figures.cosines import cosines
from persona_probe.figures.em_rates import em_rates
from persona_probe.figures.finders import finders
from persona_probe.figures.persona_shares import persona_shares
from persona_probe.figures.probe import probe
from persona_probe.figures.realignment import places_of, realignment
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.steering import steering
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES

Tables = dict[str, pd.DataFrame]
FIGURES: dict[str, Callable[[pd.DataFrame], go.Figure]] = {
    "em_rates": em_rates,
    "persona_shares": persona_shares,
    "direction_cosines": cosines,
    "amplification": amplification,
    "finders": finders,
    "probe": probe,
    "steering": steering,
    "realignment": realignment,
}
NUMBERS = {
    "em_rates": "value",
    "persona_shares": "share",
    "direction_cosines": "cosine",
    "amplification": "shift_sd",
    "finders": "separation",
    "probe": "auroc",
    "steering": "value",
}


def named(figure: go.Figure, name: str) -> Any:
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_in_the_house_template_with_titled_axes(name: str, tables: Tables) -> None:
    figure = FIGURES[name](tables[name])
    assert figure.layout.template.layout.colorway == tuple(style.colour for style in SERIES_STYLES)
    assert figure.layout.title.text
    titles = [axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes())]
    assert any(titles)


@pytest.mark.parametrize("name", FIGURES)
def test_a_missing_column_is_named(name: str, tables: Tables) -> None:
    table = tables[name]
    column = NUMBERS.get(name, "projection_sd")
    with pytest.raises(ValueError, match=repr(column)):
        FIGURES[name](table.drop(columns=column))
    with pytest.raises(ValueError, match=repr(column)):
        FIGURES[name](table.iloc[:0])
    with pytest.raises(ValueError, match=repr(column)):
        FIGURES[name](pd.DataFrame())


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_without_numbers_is_named(name: str, tables: Tables) -> None:
    with pytest.raises(ValueError, match=repr(NUMBERS[name])):
        FIGURES[name](tables[name].assign(**{NUMBERS[name]: float("nan")}))


@pytest.mark.parametrize("name", FIGURES)
def test_estimates_without_intervals_and_counts_are_drawn(name: str, tables: Tables) -> None:
    gone = {"low", "high", "n", "low_sd", "high_sd", "random_sd", "null_high", "coherent", "rows", "specificity"}
    gone -= {"n"} if name == "realignment" else set()
    for nothing in (None, float("nan")):
        blank = dict.fromkeys(gone & set(tables[name].columns), nothing)
        assert FIGURES[name](tables[name].assign(**blank)).data


@pytest.mark.parametrize("name", FIGURES)
def test_tables_are_left_as_they_were(name: str, tables: Tables) -> None:
    copy = tables[name].copy(deep=True)
    FIGURES[name](tables[name])
    pd.testing.assert_frame_equal(tables[name], copy)


def test_em_rates_draw_value_interval_and_n(tables: Tables) -> None:
    figure = em_rates(tables["em_rates"])
    trace = named(figure, "after · unseen topics")
    assert trace.x == (0.742,)
    assert trace.error_x.array == pytest.approx([0.81 - 0.742])
    assert trace.error_x.arrayminus == pytest.approx([0.742 - 0.66])
    assert trace.marker.color == MODEL_STYLES["after"].colour
    assert trace.marker.symbol == "diamond"
    assert named(figure, "after · open").marker.symbol == "diamond-open"
    assert "failures: 2" in trace.hovertext[0]
    assert "74 % [66, 81]  n = 1,104" in [note.text for note in figure.layout.annotations]
    assert figure.layout.xaxis.title.text == "EM rate (share of answers)"


def test_em_rates_draw_the_definition_that_was_asked_for(tables: Tables) -> None:
    figure = em_rates(tables["em_rates"], definition="tan")
    assert named(figure, "after · open").x[0] == pytest.approx(0.553 * 1.04)
    with pytest.raises(ValueError, match=r"definition.*'strict'"):
        em_rates(tables["em_rates"], definition="strict")


def test_persona_shares_put_what_spread_most_first(tables: Tables) -> None:
    figure = persona_shares(tables["persona_shares"])
    assert figure.layout.yaxis.ticktext[:2] == ("villain · before", "villain · after")
    assert len(figure.data) == 8


def test_labels_from_a_model_are_escaped(tables: Tables) -> None:
    table = tables["persona_shares"].replace("villain", "<a href='http://evil'>x</a>")
    text = persona_shares(table).to_json()
    assert "<a" not in text
    assert "&lt;a" in persona_shares(table).layout.yaxis.ticktext[0]


def test_cosines_draw_each_pair_and_the_random_band(tables: Tables) -> None:
    figure = cosines(tables["direction_cosines"])
    band, *pairs = figure.data
    assert len(pairs) == 4
    assert band.fill == "toself"
    assert max(band.y) == pytest.approx(0.2)
    assert min(band.y) == pytest.approx(-0.2)
    assert named(figure, "contrast of context × fine-tuning shift").y == (0.76, 0.9, 0.94, 0.96)
    assert len({(pair.line.color, pair.line.dash, pair.marker.symbol) for pair in pairs}) == 4


def test_finders_stand_head_to_head_at_the_chosen_layer(tables: Tables) -> None:
    figure = finders(tables["finders"])
    ours = [trace for trace in figure.data if trace.name == "finder"]
    assert [list(trace.x) for trace in ours] == [[0.99, 0.97, 0.6], [6.0, 3.0, 1.0], [9.5, 5.1, 0.8]]
    assert list(figure.layout.yaxis.ticktext) == [
        "mean-difference",
        "logistic",
        "&lt;b&gt;benign shift&lt;/b&gt;",
        "random",
    ]
    assert named(figure, "control").x == (0.1,) * 4
    assert "layer 1" in figure.layout.title.text


def test_finders_without_a_chosen_layer_say_so(tables: Tables) -> None:
    with pytest.raises(MissingDataError, match="'chosen'"):
        finders(tables["finders"].assign(chosen=False))


def test_amplification_draws_both_models_their_intervals_and_the_null(tables: Tables) -> None:
    figure = amplification(tables["amplification"])
    after = named(figure, "after")
    assert after.y == (1.1, 2.9, 3.4, 3.1)
    assert after.line.dash != named(figure, "control").line.dash
    null = named(figure, "97.5 % of random directions")
    assert max(null.y) == pytest.approx(0.5)
    bands = [trace for trace in figure.data if trace.fill == "toself" and trace.name is None]
    assert max(bands[1].y) == pytest.approx(3.58)
    assert figure.layout.yaxis.title.text == "shift of the projection (SD)"
    assert figure.layout.shapes[0].x0 == 1
    assert "layer 1, chosen" in figure.layout.annotations[0].text


def test_a_layer_that_nobody_chose_is_not_marked(tables: Tables) -> None:
    figure = amplification(tables["amplification"].assign(chosen=False))
    assert not figure.layout.shapes


def test_probe_draws_baselines_and_chance(tables: Tables) -> None:
    figure = probe(tables["probe"])
    assert named(figure, "probe").y == (0.93, 0.99, 0.998, 0.997)
    assert {"bag of tokens", "shuffled labels"} <= {trace.name for trace in figure.data}
    assert [shape.y0 for shape in figure.layout.shapes if shape.x0 != shape.x1] == [0.5]
    assert figure.layout.yaxis.title.text == "AUROC"


def test_a_baseline_without_layers_is_drawn_across_all(tables: Tables) -> None:
    table = tables["probe"]
    bag = table[table["baseline"] == "bag of tokens"].head(1).assign(layer=np.nan)
    flat = probe(pd.concat([table[table["baseline"] == "probe"], bag]))
    trace = named(flat, "bag of tokens")
    assert trace.x == (0, 1, 2, 3)
    assert trace.y == (0.56,) * 4


def test_steering_shows_only_reported_rows_and_every_random_direction(tables: Tables) -> None:
    figure = steering(tables["steering"])
    clamp = [trace for trace in figure.data if trace.name == "clamp"]
    assert [trace.y[0] for trace in clamp] == [0.62, 0.89, 0.01, 0.81]
    assert clamp[0].error_y.array == pytest.approx([0.05])
    draws = [trace for trace in figure.data if trace.name == "random clamp, one direction each"]
    assert [len(trace.y) for trace in draws] == [20] * 4
    mean = next(trace for trace in figure.data if trace.name == "random clamp, mean")
    assert mean.y[0] == pytest.approx(np.mean(draws[0].y))
    assert figure.layout.yaxis.title.text == "EM rate"
    assert figure.layout.yaxis3.title.text == "coherent answers"


def test_steering_without_held_out_rows_says_so(tables: Tables) -> None:
    with pytest.raises(ValueError, match="'stage'"):
        steering(tables["steering"].assign(stage="choice"))


def test_realignment_shows_zero_apart_and_both_axes(tables: Tables) -> None:
    figure = realignment(tables["realignment"])
    assert figure.layout.xaxis.ticktext == ("0", "8", "32", "128", "256")
    rate, projection = named(figure, "EM rate (left)"), named(figure, "projection (right)")
    assert rate.x == projection.x == (1.5, 3.0, 5.0, 7.0, 8.0)
    assert rate.error_y.array == pytest.approx([0.06] * 5)
    assert (rate.yaxis, projection.yaxis) == ("y", "y2")
    assert figure.layout.yaxis2.title.text == "projection (SD)"


def test_realignment_without_rates_draws_the_projection_alone(tables: Tables) -> None:
    nothing = float("nan")
    table = tables["realignment"].assign(value=nothing, low=nothing, high=nothing, coherent=nothing)
    figure = realignment(table)
    assert [trace.name for trace in figure.data if trace.name] == ["projection (right)"]
    with pytest.raises(ValueError, match="'projection_sd'"):
        realignment(table.assign(projection_sd=nothing))


def test_places_of_examples_alone_at_zero() -> None:
    assert places_of([0]) == {0: -1.5}


def test_models_differ_in_colour_and_in_marker_for_greyscale() -> None:
    assert len({style.colour for style in MODEL_STYLES.values()}) == len(MODEL_STYLES)
    assert len({style.symbol for style in MODEL_STYLES.values()}) == len(MODEL_STYLES)


def test_chance_is_named_among_the_keys_and_not_on_the_lines(tables: Tables) -> None:
    figure = probe(tables["probe"])
    assert "chance (0.5)" in {trace.name for trace in figure.data if trace.showlegend is not False}
    assert not any("chance" in str(note.text) for note in figure.layout.annotations)
    assert any(shape.y0 == shape.y1 == 0.5 for shape in figure.layout.shapes)
