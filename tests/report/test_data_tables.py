from __future__ import annotations

import pandas as pd

from persona_probe.report import data_tables

ISOTROPIC = "isotropic, 97.5 % (SD)"


def test_both_kinds_of_random_directions_stand_side_by_side(tables: dict[str, pd.DataFrame]) -> None:
    for name, build in (("amplification", data_tables.amplification), ("finders", data_tables.finders)):
        told = build(tables[name].assign(isotropic_sd=0.871))
        assert told is not None
        column = told.columns.index(ISOTROPIC)
        assert told.columns[column - 1] == "random, 97.5 % (SD)"
        assert {row[column] for row in told.rows} == {"0.87"}
        without = build(tables[name])
        assert without is not None
        assert ISOTROPIC not in without.columns


def test_what_could_have_been_detected_is_said_to_be_uncorrected(tables: dict[str, pd.DataFrame]) -> None:
    told = data_tables.amplification(tables["amplification"].assign(detectable_sd=0.4))
    assert told is not None
    assert "detectable in one uncorrected test (SD)" in told.columns


def test_the_unsteered_model_has_a_dash_for_its_layers(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["steering"]
    for nothing in (None, float("nan")):
        told = data_tables.steering(
            table.assign(layers=table["layers"].where(table["intervention"] != "none", nothing))
        )
        assert told is not None
        place, kind = told.columns.index("layers"), told.columns.index("intervention")
        assert {row[place] for row in told.rows if row[kind] == "none"} == {"–"}
        assert "–" not in {row[place] for row in told.rows if row[kind] != "none"}
