import pytest

from persona_probe.amplification.amplification import measure_amplification
from persona_probe.figures.amplification import amplification
from tests.amplification.planted import captures, direction, reference


def drawn(**nulls):
    table = measure_amplification(
        {"first": direction(0, layers=2), "second": direction(1, layers=2)}, captures(layers=2), reference(2), **nulls
    ).table
    return {trace.name: trace for trace in amplification(table.assign(chosen=table["layer"] == 1)).data}, table


def test_nulls_that_were_not_measured_are_not_drawn():
    traces, table = drawn()
    assert set(traces) - {None} == {
        "97.5 % of random directions",
        "97.5 % of isotropic directions",
        "control",
        "after",
    }
    assert (
        list(traces["after"].y)
        == table[(table["direction"] == "first") & (table["model"] == "after")]["shift_sd"].tolist()
    )


def test_isotropic_directions_are_a_dotted_line():
    traces, table = drawn()
    most = table[table["direction"] == "first"].groupby("layer")["isotropic_sd"].max()
    line = traces["97.5 % of isotropic directions"]
    assert line.line.dash == "dot"
    assert [value for value in line.y if value is not None] == pytest.approx([*most, *-most])


def test_other_traits_are_drawn_at_both_signs():
    traces, table = drawn(other_traits={"other": direction(0, 2, layers=2)})
    most = table[table["direction"] == "first"].groupby("layer")["other_traits_sd"].max()
    line = traces["other traits' directions, the most"]
    assert [value for value in line.y if value is not None] == pytest.approx([*most, *-most])
