"""What directions show in a notebook."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from tests.figure_notes import note, unescaped

HOSTILE = "<b onmouseover=x>villain</b>"


def poles(layers=3, n=40, width=8):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(n), "question": [f"q{i}" for i in range(n)]})
    values = rng.normal(size=(2, n, layers, width)).astype(np.float32)
    values[0, :, 1:, 0] += 3
    return [pp.Activations(side, table, tuple(range(layers))) for side in values]


@pytest.fixture(scope="module")
def found():
    return pp.find_direction(*poles(), name=HOSTILE, repeats=5)


def test_a_direction_is_a_row_a_layer(found):
    table = found.to_frame()
    assert table["layer"].tolist() == [0, 1, 2]
    assert table["norm"].tolist() == pytest.approx(found.norms().tolist())
    checks = found.card["checks"]
    for name in ("split_half_cosine", "held_out_auroc", "shuffled_cosine"):
        assert table[name].tolist() == checks[name]
    assert table["shuffled_norm"].tolist() == pytest.approx(list(np.array(checks["shuffled_norm"]) * found.norms()))
    assert (table["norm"] > table["shuffled_norm"]).tolist()[1:] == [True, True]


def test_a_direction_is_drawn_beside_shuffled_labels(found):
    figure = found.plot()
    lines = [trace for trace in figure.data if trace.name == "this direction"]
    table = found.to_frame()
    assert [list(line.y) for line in lines] == [
        table[name].tolist() for name in ("norm", "split_half_cosine", "held_out_auroc")
    ]
    nulls = [trace for trace in figure.data if trace.fill == "toself"]
    assert max(nulls[0].y) == pytest.approx(table["shuffled_norm"].max())
    assert min(nulls[1].y) == pytest.approx(-table["shuffled_cosine"].max())
    assert "&lt;b onmouseover" in figure.layout.title.text
    assert "<b onmouse" not in found._repr_html_()
    assert found.headline() == repr(found)


def test_a_direction_without_checks_says_so():
    bare = pp.Direction(np.ones((2, 4), dtype=np.float32), (0, 3))
    assert bare.to_frame()["held_out_auroc"].isna().all()
    figure = bare.plot()
    assert len(list(figure.select_yaxes())) == 1
    assert "has no checks" in note(figure)
    assert [list(trace.x) for trace in figure.data] == [[0, 3]]


def test_cosines_are_a_square_and_drawn_by_layer_or_as_a_matrix(found):
    second, default = poles()[0], poles()[1]
    named = {HOSTILE: found, "other": pp.find_direction(second, default, "pca"), "third": -1 * found}
    table = pp.directions.cosine_table(named, default, n_random=50)
    square = table.at(2)
    assert square.loc[HOSTILE, "third"] == square.loc["third", HOSTILE] == pytest.approx(-1)
    assert np.diag(square).tolist() == [1, 1, 1]
    lines = [trace for trace in table.plot().data if trace.mode == "lines+markers"]
    assert len(lines) == 3
    matrix = table.plot(layer=2)
    assert np.array(matrix.data[0].z, dtype=float) == pytest.approx(square.to_numpy())
    assert "97.5 % of random directions have" in note(matrix)
    assert matrix.data[1].text[2] == "−1.00"
    assert "<b onmouse" not in unescaped(matrix)
    assert "3 pairs of directions at 3 layers: cosine -1.00 to" in table.headline()
    with pytest.raises(pp.PersonaProbeError, match="no cosines at layer 9; layers: 0, 1, 2"):
        table.plot(layer=9)


def test_many_pairs_are_a_matrix_and_weak_ones_in_parentheses():
    rng = np.random.default_rng(0)
    named = {f"d{i}": pp.Direction(rng.normal(size=(2, 64)).astype(np.float32), (0, 1)) for i in range(5)}
    reference = pp.Activations(rng.normal(size=(50, 2, 64)).astype(np.float32), pd.DataFrame({"id": range(50)}), (0, 1))
    figure = pp.directions.cosine_table(named, reference, n_random=100).plot()
    assert figure.layout.title.text == "Agreement between directions, layer 1"
    off = [text for number, text in enumerate(figure.data[1].text) if number % 6]
    assert len(off) == 20
    assert sum(text.startswith("(") for text in off) > 10
    without = pp.directions.cosine_table(named)
    assert "no null" in without.headline()
    assert "No null was measured" in note(without.plot())


def test_a_subspace_is_compared_across_layers():
    rng = np.random.default_rng(0)
    same = rng.normal(size=(2, 16))
    vectors = [np.stack([row, row, rng.normal(size=16)]).astype(np.float32) for row in same]
    plane = pp.directions.Subspace.from_directions([pp.Direction(rows, (0, 1, 2)) for rows in vectors])
    table = plane.to_frame().set_index(["first", "second"])
    assert table.loc[(0, 1), "overlap"] == pytest.approx(1)
    assert table.loc[(0, 2), "overlap"] < 0.6
    assert table["chance"].iloc[0] == 2 / 16
    expected = np.square(plane.angles(plane)).mean()
    assert table.loc[(0, 0), "overlap"] == pytest.approx(expected)
    assert "neighbouring layers overlap" in plane.headline()
    assert "0.125" in note(plane.plot())
    assert "<table" in plane._repr_html_()


def test_tokens_are_drawn_as_they_are(llama):
    rng = np.random.default_rng(0)
    direction = pp.Direction(rng.normal(size=(2, llama.d_model)).astype(np.float32), (0, 2), {"name": HOSTILE})
    top = direction.top_tokens(llama, k=3)
    figure = top.plot()
    assert "layer 2" in figure.layout.title.text
    assert [len(trace.x) for trace in figure.data] == [3, 3]
    assert min(figure.data[0].x) > max(figure.data[1].x)
    assert "<b onmouse" not in unescaped(figure)
    assert "promoted" in top.headline()
    assert len(top.to_frame()) == 12
    with pytest.raises(pp.PersonaProbeError, match="did not read layer 1; it read 0, 2"):
        top.plot(layer=1)
