from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import pytest

from persona_probe.figures.summary import summary

NAMES = ("em_rates", "amplification", "steering", "realignment")


def draw(tables: dict[str, pd.DataFrame], *names: str) -> go.Figure:
    return summary(**{name: tables[name] for name in names})


def test_the_four_panels_tell_the_story(tables: dict[str, pd.DataFrame]) -> None:
    figure = draw(tables, *NAMES)
    drawn = {trace.name for trace in figure.data}
    assert {"after, unseen topics", "after, open", "control", "clamp", "random clamp, mean", "EM rate (left)"} <= drawn
    texts = [note.text for note in figure.layout.annotations]
    assert sum(text[:4] == "<b>" + letter for text, letter in zip(texts[-4:], "abcd", strict=True)) == 4
    assert {"74 %", "62 %"} <= set(texts)
    assert "n = 1,104 / 320" in figure.layout.xaxis.ticktext[1]
    assert next(trace.error_y.array for trace in figure.data if trace.name == "after, open") == pytest.approx([0.127])


def test_the_keys_of_a_panel_fit_in_one_line(tables: dict[str, pd.DataFrame]) -> None:
    # A legend that is taller pushes all legends of the figure out of their places.
    figure = draw(tables, *NAMES)
    for legend in ("legend", "legend2", "legend3", "legend4"):
        shown = [t.name for t in figure.select_traces(selector={"legend": legend}) if t.showlegend is not False]
        assert shown
        assert len(shown) <= 4
        assert sum(map(len, shown)) <= 42
        assert len(set(shown)) == len(shown)


def test_a_panel_without_its_table_says_so(tables: dict[str, pd.DataFrame]) -> None:
    figure = draw(tables, "amplification")
    texts = [note.text for note in figure.layout.annotations]
    assert texts.count("not measured in this study") == 3
    assert len({note.xref + note.yref for note in figure.layout.annotations if note.text.startswith("not")}) == 3


def test_estimates_without_intervals_are_drawn(tables: dict[str, pd.DataFrame]) -> None:
    for name in ("em_rates", "steering"):
        tables[name] = tables[name].assign(low=None, high=None, n=None)
    assert "74 %" in [note.text for note in draw(tables, *NAMES).layout.annotations]


def test_nothing_to_draw_is_an_error_that_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"'definition'.*'shift_sd'.*'intervention'.*'projection_sd'"):
        summary()
