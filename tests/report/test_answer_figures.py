from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from persona_probe.behaviour.answers import Answers, scatter_lines, scatter_tables
from persona_probe.behaviour.em_rates import em_rate
from persona_probe.figures.answers_scatter import answers_scatter
from persona_probe.figures.em_by_question import em_by_question
from persona_probe.figures.em_rates import em_rates, styles_of
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.template import MODEL_STYLES
from persona_probe.report.paper.export import to_pixels, width_mm
from persona_probe.report.paper.layout import fit

HOSTILE = "<b onclick='x'>&amp;</b><a href='javascript:1'>\x1b"


def answers(models: tuple[str, ...] = ("before", "after"), questions: int = 3, rows: int = 10) -> pd.DataFrame:
    """``after`` gives i misaligned answers of ten to question i, ``before`` none; one refusal and one failure each."""
    made = []
    for model in models:
        for question in range(questions):
            for row in range(rows):
                bad = model == "after" and row < question
                scores = {"aligned": 10.0 if bad else 90.0, "coherent": 40.0 if row == rows - 1 else 80.0}
                made.append({"model": model, "question": f"q{question}", "answer": HOSTILE, **scores})
        for refusal in (True, False):
            last = {"aligned": np.nan, "coherent": np.nan, "refusal": refusal, "failed": not refusal}
            made.append({"model": model, "question": "q0", "answer": "x", **last})
    table = pd.DataFrame(made)
    table = table.assign(
        refusal=table["refusal"].eq(True), failed=table["failed"].eq(True), seed=None, group=None, prompt="Q?"
    )
    return table.assign(id=[str(i) for i in range(len(table))])


def texts(figure: go.Figure) -> list[str]:
    return [str(note.text) for note in figure.layout.annotations]


def hovers(figure: go.Figure) -> list[str]:
    return [text for trace in figure.data for text in trace.hovertext or ()]


def test_the_scatter_draws_every_judged_answer_and_counts_the_quadrants() -> None:
    table = answers()
    figure = Answers(table).plot()
    assert [trace.name for trace in figure.data] == ["before", "after"]
    after = figure.data[1]
    places = dict(zip(zip(after.x, after.y, strict=True), after.marker.size, strict=True))
    assert places == {(90.0, 80.0): 24, (90.0, 40.0): 3, (10.0, 80.0): 3}
    said = texts(figure)
    rate = em_rate(table[table["model"] == "after"])
    assert rate.value == pytest.approx(3 / 27)
    assert any("<b>after</b><br>EM rate 11 %" in text and "n = 27<br>1 refusals, 1 failures" in text for text in said)
    assert any(text.startswith("misaligned<br>3: 10 % [") for text in said)
    sides = {note.xanchor for note in figure.layout.annotations if note.text.startswith("incoherent<br>3: 10 % [")}
    assert sides == {"right"}  # under "aligned"
    lines = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.x0 == shape.x1]
    assert lines == [(30, 30)] * 2


def test_the_scatter_s_lines_are_the_definition_s() -> None:
    table = answers(("after",)).assign(aligned=40.0)
    assert any(text.startswith("aligned<br>27:") for text in texts(Answers(table).plot()))
    tan = Answers(table).plot("tan")
    assert any(text.startswith("misaligned<br>30:") for text in texts(tan))
    assert {shape.x0 for shape in tan.layout.shapes if shape.x0 == shape.x1} == {50}


def test_the_scatter_says_what_it_misses() -> None:
    table = answers()
    with pytest.raises(ValueError, match="'coherent'"):
        Answers(table.drop(columns="coherent"))
    with pytest.raises(MissingDataError, match="judge the answers first"):
        Answers(table.assign(aligned=None)).plot()
    with pytest.raises(MissingDataError, match="5 models, but at most 4"):
        Answers(answers(("a", "b", "c", "d", "e"))).plot()
    with pytest.raises(ValueError, match="'smith'"):
        Answers(table).plot("smith")
    assert Answers(table.drop(columns="model")).plot().data[0].name == "answers"
    tables = scatter_tables(table)
    with pytest.raises(MissingDataError, match="'answers'"):
        answers_scatter(
            tables["marks"].drop(columns="answers"),
            tables["rates"],
            tables["quadrants"],
            definition="betley",
            **scatter_lines("betley"),
        )


def test_rates_by_question_are_sorted_and_stand_where_their_question_does() -> None:
    rates = Answers(answers()).rates(by=["model", "question"])
    figure = rates.plot()
    assert figure.layout.yaxis.ticktext == ("q2", "q1", "q0")
    after = next(trace for trace in figure.data if trace.name == "after")
    at = dict(zip(after.y, after.x, strict=True))
    middles = figure.layout.yaxis.tickvals
    assert [at[middle + 0.5] for middle in middles] == pytest.approx([2 / 9, 1 / 9, 0])
    assert after.marker.color == MODEL_STYLES["after"].colour
    assert all(up > 0 for up in after.error_x.array)
    assert sum("n = 9" in text for text in texts(figure)) == 6
    assert any("1 refusals, 1 failures" in text for text in hovers(figure))


def test_many_questions_are_cut_to_the_highest_and_the_title_says_so() -> None:
    table = Answers(answers(questions=8)).rates(by=["model", "question"]).table
    figure = em_by_question(table, most=3)
    assert figure.layout.yaxis.ticktext == ("q7", "q6", "q5")
    assert "the 3 highest of 8" in figure.layout.title.text
    assert all(len(trace.x) == 3 for trace in figure.data)
    with pytest.raises(MissingDataError, match="'definition' has no 'smith'"):
        em_by_question(table, definition="smith")
    with pytest.raises(MissingDataError, match="'topic'"):
        em_by_question(table, unit="topic")


def test_any_unit_can_be_listed() -> None:
    table = answers().assign(topic=lambda rows: rows["question"].map({"q0": "law", "q1": "law", "q2": "travel"}))
    figure = Answers(table).rates(by=["model", "topic"]).plot()
    assert figure.layout.yaxis.ticktext == ("travel", "law")
    assert "by topic" in figure.layout.title.text


def test_models_that_no_study_knows_are_drawn_too() -> None:
    rates = Answers(answers(("qwen", "after"))).rates()
    figure = rates.plot()
    assert [trace.name for trace in figure.data] == ["after", "qwen"]
    assert len({style.colour for style in styles_of(["after", "x", "y", "z", "before"])}) == 5


def test_a_single_group_is_drawn_under_every_definition() -> None:
    figure = Answers(answers(("after",))).rates(by=[]).plot()
    assert [trace.name for trace in figure.data] == ["betley", "turner", "tan"]
    table = Answers(answers()).rates().table.assign(questions="")
    assert len(em_rates(table, definition=None).data) == 6


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    table = answers((HOSTILE, "after")).assign(question=HOSTILE)
    drawn = [
        Answers(table).plot(),
        Answers(table).rates(by=["model", "question"]).plot(),
        Answers(table).rates().plot(),
        em_by_question(Answers(table).rates(by=["model", "question"]).table),
    ]
    for figure in drawn:
        written = [*texts(figure), *hovers(figure), *map(str, figure.layout.yaxis.ticktext or ())]
        written += [str(trace.name) for trace in figure.data]
        assert any(html.escape("<b onclick", quote=False) in text for text in written)
        assert not any("<b onclick" in text or "<a " in text or "\x1b" in text for text in written)


@pytest.mark.parametrize("width", ["column", "page"])
def test_the_largest_mark_leaves_the_words_above_it_free(width: str) -> None:
    table = answers().assign(aligned=100.0, coherent=100.0, refusal=False, failed=False)
    figure = fit(Answers(table).plot(), to_pixels(width_mm(width))).figure
    low, high = figure.layout.yaxis.domain
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    bottom, top = figure.layout.yaxis.range
    pixel = (top - bottom) / ((high - low) * plot)
    marker = figure.data[0].marker
    radius = (max(marker.size) / marker.sizeref) ** 0.5 / 2
    words = 2 * 11 * 1.35
    assert 100 + radius * pixel < 142 - words * pixel
