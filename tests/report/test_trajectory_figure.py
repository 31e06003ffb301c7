import numpy as np
import pandas as pd
import pytest

from persona_probe.figures.required import MissingDataError
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.trajectory import trajectory

STEPS = [0, 10, 20, 40]


def series(name: str, latent: int, values: list[float], spread: float, n: int) -> pd.DataFrame:
    value = np.array(values)
    change = value - value[0]
    return pd.DataFrame(
        {
            "step": STEPS,
            "series": name,
            "latent": latent,
            "value": value,
            "low": value - spread,
            "high": value + spread,
            "change": change,
            "change_low": change - spread,
            "change_high": change + spread,
            "n": n,
        }
    )


@pytest.fixture
def table() -> pd.DataFrame:
    parts = [
        series("latent 3", 3, [7.0, 120.0, 250.0, 300.0], 9.0, 200),
        series("latent 8", 8, [50.0, 40.0, 20.0, 10.0], 2.0, 200),
        series("EM rate", -1, [0.0, 0.01, 0.3, 0.8], 0.05, 190),
    ]
    return pd.concat(parts, ignore_index=True)


def drawn(figure):
    return {trace.name: trace for trace in figure.data}


def test_activations_are_on_the_left_axis_and_the_rate_on_the_right(table):
    figure = trajectory(table)
    traces = drawn(figure)
    assert list(traces) == ["latent 3 (left)", "latent 8 (left)", "EM rate (right)"]
    assert list(traces["latent 3 (left)"].y) == [7.0, 120.0, 250.0, 300.0]
    assert list(traces["latent 3 (left)"].x) == STEPS
    assert list(traces["latent 3 (left)"].error_y.array) == pytest.approx([9.0] * 4)
    assert [trace.yaxis for trace in traces.values()] == ["y", "y", "y2"]
    assert figure.layout.yaxis.title.text == "mean activation"
    assert figure.layout.yaxis2.title.text == "EM rate"
    assert figure.layout.xaxis.title.text == "training step"
    assert "latent 3 n = 200; latent 8 n = 200; EM rate n = 190" in figure.layout.annotations[-1].text
    assert "80 % [75, 85], n = 190" in traces["EM rate (right)"].hovertext[-1]
    assert len({trace.line.color for trace in traces.values()}) == 3
    assert figure.layout.template.layout.colorway == tuple(style.colour for style in SERIES_STYLES)


def test_shares_put_all_on_one_axis_and_falling_series_rise(table):
    figure = trajectory(table, share=True, axis="share of bad data")
    traces = drawn(figure)
    assert list(traces["latent 8"].y) == pytest.approx([0, 0.25, 0.75, 1])
    assert list(traces["latent 8"].error_y.array) == pytest.approx([0.05] * 4)
    assert list(traces["EM rate"].y) == pytest.approx([0, 0.0125, 0.375, 1])
    assert {trace.yaxis for trace in figure.data} == {"y"}
    assert figure.layout.xaxis.title.text == "share of bad data"


def test_a_series_that_does_not_move_is_named_and_not_blown_up(table):
    table.loc[table["latent"] == -1, ["value", "low", "high", "change"]] = 0.0
    table.loc[table["latent"] == -1, "change_low"] = -0.02
    figure = trajectory(table, share=True)
    assert list(drawn(figure)) == ["latent 3", "latent 8", "EM rate: does not move"]
    assert "EM rate" not in figure.layout.annotations[-1].text.replace("EM rate: does", "")
    with pytest.raises(MissingDataError, match="EM rate"):
        trajectory(table[table["latent"] == -1], share=True)


def test_without_a_rate_there_is_no_right_axis(table):
    figure = trajectory(table[table["latent"] >= 0])
    assert figure.layout.yaxis2.title.text is None
    assert len(figure.data) == 2


def test_what_is_missing_is_named(table):
    with pytest.raises(MissingDataError, match="change_low"):
        trajectory(table.drop(columns="change_low"))
    with pytest.raises(MissingDataError, match="no rows"):
        trajectory(table.iloc[:0])


def test_the_rates_axis_has_round_ticks_and_the_title_says_what_the_steps_are(table: pd.DataFrame) -> None:
    figure = trajectory(table)
    assert figure.layout.yaxis2.tickmode == "auto"  # in step with the left axis there would be ticks at -3 %
    assert figure.layout.title.text == "Latents along training"
    assert trajectory(table, axis="<b>rows").layout.title.text == "Latents by &lt;b&gt;rows"
