"""What probes' results show in a notebook."""

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.probes.baselines import probe_with_baselines
from persona_probe.probes.transfer import transfer_matrix
from tests.figure_notes import note, unescaped
from tests.probes.planted import planted

HOSTILE = "<img src=x>"


@pytest.fixture(scope="module")
def beside():
    activations, labels = planted(4.0)
    return probe_with_baselines(activations, labels, groups=activations.table["group"], embeddings=activations)


@pytest.fixture(scope="module")
def moved():
    activations, labels = planted(4.0)
    part = np.array([HOSTILE, "b", "alone"])[np.minimum(np.arange(240) // 8 % 3, 2)]
    return transfer_matrix(activations, labels & (part != "alone"), part, groups=activations.table["group"])


def test_scores_are_drawn_with_their_interval_and_chance(beside):
    figure = beside.scores.plot()
    table = beside.scores.table
    band, line = (trace for trace in figure.data if trace.name != "chance (0.5)")
    assert line.name == "probe"
    assert list(line.y) == table["value"].tolist()
    assert list(band.y) == [*table["high"], *table["low"][::-1]]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5]
    assert "by group (8 groups); n = 240 dialogues" in note(figure)
    assert beside.scores.headline().endswith("over 2 layers, 240 dialogues, by group (8 groups); chance 0.5")
    assert "<table" in beside.scores._repr_html_()


def test_a_probe_is_drawn_beside_all_its_baselines(beside):
    figure = beside.plot(layer=1)
    names = {trace.name for trace in figure.data if trace.name}
    assert names == {"probe", "shuffled labels", "random features", "token embeddings", "chance (0.5)"}
    assert any(shape.x0 == 1 == shape.x1 for shape in figure.layout.shapes)
    flat = next(trace for trace in figure.data if trace.name == "random features")
    row = beside.table[beside.table["baseline"] == "random features"].iloc[0]
    assert max(flat.error_y.array) == pytest.approx(row["high"] - row["value"])
    assert sorted(flat.error_y.array)[0] == 0, "one interval is drawn once"
    assert list(beside.shown().columns) == [
        "layer", "probe", "shuffled labels", "token embeddings", "random features",
    ]  # fmt: skip
    assert "at most: shuffled labels" in beside.headline()


def test_the_verdict_gives_the_probe_and_its_baselines_at_a_layer(beside):
    rows = beside.table[beside.table["layer"] == 1].set_index("baseline")
    said = beside.verdict(1)
    own = rows.loc["probe"]
    assert f"layer 1 reaches AUROC {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]" in said
    assert "(n = 240, by group (8 groups)); chance: 0.5; baselines: shuffled labels 0." in said
    assert f"token embeddings {rows.loc['token embeddings', 'value']:.3f}" in said
    with pytest.raises(pp.PersonaProbeError, match="no probe at layer 7; layers: 0, 1"):
        beside.verdict(7)
    assert len(beside.to_frame()) == 4 * 2


def test_a_transfer_matrix_is_read_by_cell(moved):
    square = moved.at(1)
    assert list(square.index) == list(square.columns) == [HOSTILE, "b", "alone"]
    assert square.loc[HOSTILE, "b"] > 0.9
    assert square["alone"].isna().all()
    figure = moved.plot()
    assert figure.layout.title.text == "Probe transfer, layer 1", "the layer that does best on the diagonal"
    heat, numbers = figure.data
    assert np.array(heat.z, dtype=float)[:2, :2].min() > 0.9
    assert (heat.zmin + heat.zmax) / 2 == 0.5
    assert numbers.text[0].startswith("1.00<br>") or numbers.text[0].startswith("0.9")
    assert numbers.text[2] == "–"
    assert "holds dialogues of one class only" in heat.hovertext[0][2]
    assert "n = 80" in heat.hovertext[0][1]
    assert "<img" not in unescaped(figure)
    assert "<img" not in moved._repr_html_()
    assert moved.headline().startswith("probes of 3 parts at layer 1: AUROC 0.9") or "1.00 to 1.00" in moved.headline()
    with pytest.raises(pp.PersonaProbeError, match="layer 5 was not probed; probed: 0, 1"):
        moved.plot(layer=5)


def test_cells_that_hold_chance_stand_in_parentheses(moved):
    rows = moved.table[(moved.table["layer"] == 0) & moved.table["value"].notna()]
    (_, numbers) = moved.plot(layer=0).data
    unsure = ((rows["low"] <= 0.5) & (rows["high"] >= 0.5)).tolist()
    assert any(unsure)
    drawn = [text.startswith("(") for text in numbers.text if text != "–"]
    assert drawn == unsure
