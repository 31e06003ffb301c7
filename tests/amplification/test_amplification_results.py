"""What amplification's results show in a notebook."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.amplification.convergence import measure_convergence
from persona_probe.amplification.course_result import AmplificationCourse
from persona_probe.amplification.cross_ablation_result import CrossAblation
from persona_probe.amplification.finder_comparison import compare_finders
from persona_probe.result import Result
from tests.amplification.planted import captures, direction, reference
from tests.amplification.test_finder_comparison import HELD_OUT, NEGATIVE, POSITIVE
from tests.figure_notes import note, unescaped

HOSTILE = "<script>alert(1)</script>"
NAMED = {HOSTILE: direction(0, layers=2), "other": direction(1, layers=2)}
FEW = {"n_random": 20, "n_permutations": 50}


@pytest.fixture(scope="module")
def moved():
    return pp.measure_amplification(NAMED, captures(layers=2), reference(2), **FEW)


@pytest.fixture(scope="module")
def course(moved):
    tables = [
        pp.measure_amplification(NAMED, captures(narrow=narrow, layers=2), reference(2), **FEW).table.assign(
            step=step, name=HOSTILE
        )
        for step, narrow in ((0, 0.0), (10, 2.0), (20, 4.0))
    ]
    return AmplificationCourse(pd.concat(tables, ignore_index=True))


@pytest.fixture(scope="module")
def ablated():
    rows = [
        ("one", None, None, "none", 0.9, 0.8, 0.95, 40, 0.98),
        ("one", HOSTILE, 2, "clamp", 0.05, 0.0, 0.15, 40, 0.97),
        ("one", HOSTILE, 2, "random clamp", 0.88, 0.8, 0.94, 120, 0.96),
    ]
    names = ["organism", "direction", "layer", "intervention", "value", "low", "high", "n", "coherent"]
    return CrossAblation(pd.DataFrame(rows, columns=names))


@pytest.fixture
def every(moved, course, ablated):
    found = compare_finders(
        POSITIVE, NEGATIVE, HELD_OUT, captures(), reference(), finders=["pca", "random"], layer=0,
        others={HOSTILE: direction(0)}, n_random=20,
    )  # fmt: skip
    return [moved, course, ablated, found, found.cosines, measure_convergence(NAMED, reference(2), n_random=20)]


def test_results_are_drawn_shown_and_copied_without_running_what_names_say(every):
    for result in every:
        assert isinstance(result, Result)
        page = result._repr_html_()
        assert "<script" not in page
        assert "\n" not in result.headline()
        assert "<script" not in unescaped(result.plot())
        given = result.to_frame()
        given["mine"] = 1
        assert "mine" not in result.to_frame(), "the table that is given away is a copy"


def test_amplification_is_drawn_by_name_with_the_layer_marked(moved):
    figure = moved.plot("other", layer=1)
    (after,) = [trace for trace in figure.data if trace.name == "after"]
    rows = moved.table[(moved.table["direction"] == "other") & (moved.table["model"] == "after")]
    assert list(after.y) == rows["shift_sd"].tolist()
    assert figure.layout.shapes[0].x0 == 1
    assert figure.layout.title.text == "Amplification of other"
    assert "over 30 questions; n = 120 texts" in note(figure)
    assert not moved.plot("other").layout.shapes
    with pytest.raises(pp.PersonaProbeError, match="'nobody' was not measured"):
        moved.plot("nobody")


def test_a_course_is_drawn_at_the_layer_that_moved_most_unless_told(course):
    figure = course.plot()
    assert figure.layout.title.text.endswith("along training, layer 0")
    (after,) = [trace for trace in figure.data if trace.name == "after"]
    assert list(after.x) == [0, 10, 20]
    assert list(after.y) == pytest.approx([0, 2, 4], abs=0.3)
    assert "97.5 % of random directions" in {trace.name for trace in figure.data}
    (halved,) = [trace for trace in course.plot(layer=1, axis="rows").data if trace.name == "after"]
    assert list(halved.y) == pytest.approx([0, 1, 2], abs=0.3)
    assert "step 20 of 3 snapshots: +" in course.headline()
    with pytest.raises(pp.PersonaProbeError, match="not measured at layer 7"):
        course.plot(layer=7)
    with pytest.raises(pp.PersonaProbeError, match="'nobody' was not measured"):
        course.plot(direction="nobody")


def test_cross_ablation_stands_beside_its_null(ablated):
    figure = ablated.plot()
    assert [trace.x[0] for trace in figure.data] == [0.9, 0.05, 0.88]
    assert len({trace.marker.color for trace in figure.data}) == 3
    assert "coherent: 97 %" in figure.data[1].hovertext[0]
    assert ablated.headline() == (
        "EM rates of 1 organisms: unsteered 90.0% to 90.0%, clamped 5.0% to 5.0%, random 88.0% to 88.0%"
    )
    none = CrossAblation(ablated.table.assign(value=np.nan))
    assert "none was measured" in none.headline()
    with pytest.raises(ValueError, match="'value'"):
        none.plot()


def test_convergence_draws_what_noise_allows():
    card = {"checks": {"split_half_cosine": [0.5, 0.8]}}
    pair = {name: pp.Direction(direction(0, layers=2).vectors, (0, 1), card) for name in ("a", "b")}
    found = measure_convergence(pair, reference(2), n_random=20)
    assert "noise allows 0.67 to 0.89 for one direction" in found.headline()
    bars = [trace for trace in found.plot().data if trace.marker.symbol == "line-ew-open"]
    assert list(bars[0].y) == pytest.approx([2 / 3, 8 / 9])
    assert "Noise allows at most 0.89 for two" in note(found.plot(layer=1))
    unknown = measure_convergence(NAMED, reference(2), n_random=20)
    assert "not known" in unknown.headline()
    assert not [trace for trace in unknown.plot().data if trace.marker.symbol == "line-ew-open"]
