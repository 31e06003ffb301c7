from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from persona_probe.figures.em_rates import em_rates
from persona_probe.report.sections import build_sections
from persona_probe.report.topics.amplification import shift_table
from persona_probe.report.topics.behaviour import rates_table
from persona_probe.report.topics.finders import finders_table
from persona_probe.report.topics.steering import reported_table
from persona_probe.runs.record import read_run

ISOTROPIC = "isotropic, 97.5 % (SD)"


def test_both_kinds_of_random_directions_stand_side_by_side(tables: dict[str, pd.DataFrame]) -> None:
    for name, build in (("amplification", shift_table), ("finders", finders_table)):
        shown = build(tables[name].assign(isotropic_sd=0.871))
        assert shown is not None
        column = shown.columns.index(ISOTROPIC)
        assert shown.columns[column - 1] == "random, 97.5 % (SD)"
        assert {row[column] for row in shown.rows} == {"0.87"}
        without = build(tables[name])
        assert without is not None
        assert ISOTROPIC not in without.columns


def test_what_can_be_detected_is_said_to_be_assurance(tables: dict[str, pd.DataFrame]) -> None:
    shown = shift_table(tables["amplification"].assign(detectable_sd=0.4))
    assert shown is not None
    assert "detectable with 80 % assurance (SD)" in shown.columns


def test_the_unsteered_model_has_a_dash_for_its_layers(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["steering"]
    for nothing in (None, float("nan")):
        shown = reported_table(table.assign(layers=table["layers"].where(table["intervention"] != "none", nothing)))
        assert shown is not None
        place, kind = shown.columns.index("layers"), shown.columns.index("intervention")
        assert {row[place] for row in shown.rows if row[kind] == "none"} == {"–"}
        assert "–" not in {row[place] for row in shown.rows if row[kind] != "none"}


@pytest.fixture
def four_definitions(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rates with a definition that no file of the package knows, before all others."""
    rates = tables["em_rates"]
    planted = rates[rates["definition"] == "betley"].assign(definition="strict", value=0.123, low=0.1, high=0.15, n=77)
    return pd.concat([planted, rates], ignore_index=True)


def test_every_definition_that_a_table_holds_is_shown(four_definitions: pd.DataFrame) -> None:
    shown = rates_table(four_definitions)
    assert shown is not None
    assert shown.columns == ["model", "questions", "strict", "betley", "turner", "tan", "refusals", "failures"]
    assert {row[2] for row in shown.rows} == {"12 % [10, 15], n = 77"}
    after = next(row for row in shown.rows if row[:2] == ["after", "unseen topics"])
    assert after[3:] == ["74 % [66, 81], n = 1,104", "65 % [58, 71], n = 1,104", "77 % [69, 84], n = 1,104", "0", "2"]
    every = em_rates(four_definitions, definition=None)
    labels = list(every.layout.yaxis.ticktext)
    place = labels.index("after · unseen topics · strict")
    assert [label.split(" · ")[-1] for label in labels[place : place + 4]] == ["strict", "betley", "turner", "tan"]
    assert every.data[place].x == (0.123,)
    assert set(em_rates(four_definitions, definition="strict").data[0].x) == {0.123}


def test_the_report_shows_a_definition_that_no_file_knows(
    tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any, four_definitions: pd.DataFrame
) -> None:
    run = read_run(write_run(tmp_path / "run", tables | {"em_rates": four_definitions}, results, manifest))
    section = next(section for section in build_sections(run) if section.id == "em-rates")
    assert "strict" in section.tables[0].columns
