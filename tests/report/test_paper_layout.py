from __future__ import annotations

from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from persona_probe.figures.template import NAME
from persona_probe.report.figure_list import figures
from persona_probe.report.paper.export import SCALE, to_mm, to_pixels, width_mm
from persona_probe.report.paper.layout import fit
from persona_probe.report.paper.text_size import wrapped

COLUMN, PAGE = (to_pixels(width_mm(name)) for name in ("column", "page"))


def test_sizes_are_those_on_paper() -> None:
    assert to_mm(COLUMN) == pytest.approx(89)
    assert to_mm(PAGE) == pytest.approx(183)
    sizes = [size * SCALE * 72 / 96 for size in (12, 13, 14)]  # what the template writes in
    assert all(7 <= size <= 9 for size in sizes)


def test_titles_go_but_for_who_wants_them(tables: dict[str, pd.DataFrame]) -> None:
    figure = figures.em_rates(tables["em_rates"])
    assert fit(figure, COLUMN).figure.layout.title.text == ""
    kept = fit(figure, COLUMN, title=True)
    assert kept.figure.layout.title.text == figure.layout.title.text
    assert kept.height > fit(figure, COLUMN).height
    assert figure.layout.title.text  # the figure itself is left alone
    assert fit(figure, COLUMN, height=300.0).height == 300.0


def test_a_dark_figure_is_printed_light(tables: dict[str, pd.DataFrame]) -> None:
    figure = figures.probe(tables["probe"]).update_layout(template="plotly_dark")
    assert fit(figure, PAGE).figure.layout.template.layout.paper_bgcolor == "#FFFFFF"


def test_numbers_beside_rows_go_under_their_names_in_a_column(tables: dict[str, pd.DataFrame]) -> None:
    figure = figures.em_rates(tables["em_rates"])
    numbers = [note.text for note in figure.layout.annotations]
    column = fit(figure, COLUMN).figure
    assert not column.layout.annotations
    assert [label.split("<br>")[1] for label in column.layout.yaxis.ticktext] == numbers
    assert len(fit(figure, PAGE).figure.layout.annotations) == len(numbers)


def test_panels_stand_below_one_another_in_a_column(tables: dict[str, pd.DataFrame]) -> None:
    figure = figures.steering(tables["steering"])
    column = fit(figure, COLUMN)
    domains = [column.figure.layout[name].domain for name in ("yaxis", "yaxis3", "yaxis2", "yaxis4")]
    assert all(above[0] > below[1] for above, below in pairwise(domains))
    assert {tuple(axis.domain) for axis in column.figure.select_xaxes()} == {(0.0, 1.0)}
    assert all(axis.showticklabels is not False for axis in column.figure.select_yaxes())
    assert column.height > fit(figure, PAGE).height
    heads = {note.text: note for note in column.figure.layout.annotations}
    induce, suppress = (next(note for text, note in heads.items() if goal in text) for goal in ("induce", "suppress"))
    assert induce.y >= domains[0][1] > domains[1][0] > suppress.y >= domains[2][1]


def test_panels_with_common_rows_stay_side_by_side(tables: dict[str, pd.DataFrame]) -> None:
    column = fit(figures.finders(tables["finders"]), COLUMN).figure
    lefts = [axis.domain for axis in column.select_xaxes()]
    assert all(first[1] < second[0] for first, second in pairwise(lefts))


def test_keys_stand_below_in_as_many_lines_as_they_need() -> None:
    names = [f"a series with quite a long name, number {number}" for number in range(4)]
    figure = go.Figure([go.Scatter(x=[0, 1], y=[0, 1], name=name) for name in names]).update_layout(template=NAME)
    few = fit(go.Figure(figure.data[:2]).update_layout(template=NAME), COLUMN)
    many = fit(figure, COLUMN)
    legend = many.figure.layout.legend
    assert (legend.yref, legend.y, legend.yanchor) == ("container", 0, "bottom")
    assert many.height - few.height == pytest.approx(2 * 21, abs=1)


def test_hatching_becomes_hollow_bars() -> None:
    marker = {"color": ["#D55E00", "#0072B2"], "pattern": {"shape": ["", "/"]}}
    bars = go.Figure(go.Bar(x=[1, -1], y=["a", "b"], orientation="h", marker=marker)).update_layout(template=NAME)
    printed = fit(bars, COLUMN).figure.data[0].marker
    assert printed.pattern.shape == ""
    assert printed.color[0] == "#D55E00"
    assert printed.color[1] != "#0072B2"
    assert printed.line.color[1] == "#0072B2"


def test_a_figure_without_axes_and_one_of_panels_are_laid_out() -> None:
    assert fit(go.Figure(go.Pie(values=[1, 2])), COLUMN).width == COLUMN
    panels = make_subplots(rows=1, cols=2)
    panels.add_scatter(x=[0], y=[0], row=1, col=1).add_scatter(x=[0], y=[0], row=1, col=2)
    assert fit(panels, COLUMN).figure.layout.yaxis.domain[0] > fit(panels, COLUMN).figure.layout.yaxis2.domain[1]


def test_labels_are_broken_between_words_and_entities_stay_whole() -> None:
    assert wrapped("short", 100, 12) == "short"
    broken = wrapped("one &amp; another &lt;b&gt; and a third word", 100, 12)
    assert "<br>" in broken
    assert broken.replace("<br>", " ") == "one &amp; another &lt;b&gt; and a third word"


def test_numbers_in_cells_are_rounded_before_they_are_too_small_to_read() -> None:
    def cells(count: int) -> go.Scatter:
        names = [f"direction {number}" for number in range(count)]
        values = iter([-0.04, -0.28, 0.83, 1.0] * count * count)
        pairs = [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
        rows = [{"layer": 0, "first": a, "second": b, "cosine": next(values), "null_high": 0.3} for a, b in pairs]
        figure = fit(figures.finder_cosines(pd.DataFrame(rows)), COLUMN).figure
        return next(trace for trace in figure.select_traces({"type": "scatter"}) if trace.mode == "text")

    few, many = cells(4), cells(10)
    assert {"(−.04)", "(−.28)", ".83", "1.00"} == set(few.text)
    assert {"(0)", "(−.3)", ".8", "1"} == set(many.text)
    assert many.textfont.size * SCALE * 72 / 96 > 6.5
