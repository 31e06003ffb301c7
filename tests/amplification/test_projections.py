"""Projections and the persona space on planted changes: narrow training moves dimension 0, any training dimension 1."""

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.activations.captures import Captures
from persona_probe.amplification.persona_space import measure_persona_space
from persona_probe.amplification.projections import measure_projections
from tests.amplification.planted import captures, direction, reference
from tests.figure_notes import note, unescaped

NAMED = {"moved": direction(0, layers=2), "<i>tuned</i>": direction(1, layers=2)}


def test_means_stand_where_they_were_planted_in_sd():
    found = measure_projections(NAMED, captures(layers=2), reference(2))
    at = found.table.set_index(["direction", "layer", "model"])
    assert at.loc[("moved", 0, "after"), "mean_sd"] == pytest.approx(4.0, abs=0.4)
    assert at.loc[("moved", 1, "after"), "mean_sd"] == pytest.approx(2.0, abs=0.4)
    assert at.loc[("<i>tuned</i>", 0, "control"), "mean_sd"] == pytest.approx(4.0, abs=0.4)
    for model in ("before", "control"):
        row = at.loc[("moved", 0, model)]
        assert row["low_sd"] < 0 < row["high_sd"]
    assert set(found.table["n"]) == {120}
    assert set(found.table["n_questions"]) == {30}


def test_differences_of_the_means_are_the_amplification():
    read = captures(layers=2)
    at = measure_projections(NAMED, read, reference(2)).table.set_index(["direction", "layer", "model"])
    moved = pp.measure_amplification(NAMED, read, reference(2), n_random=20, n_permutations=20).table
    for row in moved.to_dict("records"):
        key = (row["direction"], row["layer"])
        for column, shift in (("mean_sd", "shift_sd"), ("mean", "shift")):
            change = at.loc[(*key, row["model"]), column] - at.loc[(*key, "before"), column]
            assert change == pytest.approx(row[shift], abs=1e-5)


def test_projections_are_drawn_and_shown():
    found = measure_projections(NAMED, captures(layers=2), reference(2))
    figure = found.plot("<i>tuned</i>", layer=1)
    assert [trace.name for trace in figure.data if trace.name] == ["before", "control", "after"]
    assert figure.layout.title.text == "Projection on &lt;i&gt;tuned&lt;/i&gt; by layer"
    assert "95 % over 30 questions, n = 120 texts" in note(figure)
    assert "moved, layer 1: before" in found.headline()
    assert "&lt;i&gt;tuned" in found._repr_html_()
    assert "<i>" not in found._repr_html_()
    with pytest.raises(pp.PersonaProbeError, match="'other' was not projected on"):
        found.plot("other")


def test_what_cannot_be_projected_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="no direction to project on"):
        measure_projections({}, captures(), reference())
    with pytest.raises(pp.PersonaProbeError, match=r"'direction' has layers \(0,\)"):
        measure_projections(direction(0), captures(layers=2), reference(2))
    flat = reference()
    flat.values[:, :, 0] = 1.0
    with pytest.raises(pp.PersonaProbeError, match="do not vary along 'direction' at layer 0"):
        measure_projections(direction(0), captures(), flat)


def test_models_stand_among_the_directions():
    named = {"villain": direction(0), "tuned": direction(1), "small": direction(0) * 0.1}
    found = measure_persona_space(named, captures(), reference(), layer=0, n_random=100)
    at = found.table.set_index("name")
    basis = np.array([[at.loc[name, axis] for axis in "xy"] for name in ("villain", "tuned")]) / 3
    assert np.abs(basis).max(axis=1) == pytest.approx([1, 1], abs=1e-5)
    after = np.array([at.loc["after", axis] for axis in "xy"]) @ np.linalg.inv(basis)
    assert after == pytest.approx([4, 4], abs=0.4)
    assert at.loc["control", ["x", "y"]].abs().max() == pytest.approx(4, abs=0.4)
    for axis in "xy":
        assert at.loc["before", f"{axis}_low"] < 0 < at.loc["before", f"{axis}_high"]
        assert at.loc["after", f"{axis}_low"] < at.loc["after", axis] < at.loc["after", f"{axis}_high"]
    assert at.loc["after", "in_plane"] > 0.99 > 0.3 > at.loc["after", "in_plane_random"]
    assert np.isnan(at.loc["before", "in_plane"])
    assert at["x_explained"].iloc[0] + at["y_explained"].iloc[0] == pytest.approx(1.0)
    assert at["x_explained"].iloc[0] == pytest.approx(9.09 / 18.09, abs=1e-4)


def test_a_change_outside_the_plane_is_seen_to_be():
    named = {"far": direction(5), "farther": direction(6)}
    at = measure_persona_space(named, captures(), reference(), layer=0, n_random=100).table.set_index("name")
    assert at.loc["after", "in_plane"] < at.loc["after", "in_plane_random"]
    one = captures()
    still = measure_persona_space(named, Captures(one.before, one.before), reference(), layer=0, n_random=10)
    assert still.table["in_plane"].isna().all()
    assert "before" in {trace.name for trace in still.plot().data}


def test_the_map_says_what_it_shows():
    named = {"villain": direction(0), "<b>bold</b>": direction(1)}
    found = measure_persona_space(named, captures(), reference(), layer=0, n_random=50)
    figure = found.plot()
    assert "(50 %)" in figure.layout.xaxis.title.text
    assert "&lt;b&gt;bold" in unescaped(figure)
    (after,) = [trace for trace in figure.data if trace.name == "after"]
    assert after.error_x.array[0] > 0 < after.error_y.array[0]
    assert "of after's shift from before" in note(figure)
    assert "two components hold 100%" in found.headline()
    assert "<b>" not in found._repr_html_()


def test_a_line_is_no_plane():
    with pytest.raises(pp.PersonaProbeError, match="needs two directions"):
        measure_persona_space({"one": direction(0)}, captures(), reference(), layer=0)
    with pytest.raises(pp.PersonaProbeError, match="lie on one line at layer 0"):
        measure_persona_space({"one": direction(0), "twice": 2 * direction(0)}, captures(), reference(), layer=0)
