from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from persona_probe.report.data_table import DataTable, csv_text
from persona_probe.report.paper.latex import escape_latex, latex_table


def test_csv_keeps_numbers_and_disarms_formulas() -> None:
    table = pd.DataFrame(
        {
            "=bad": ["=1+1", "+cmd", "-2", "@SUM(A1)", "\tx", "plain", None],
            "number": [-1.5, 2.25, float("nan"), 0.1 + 0.2, 1e-12, 3.0, -4.0],
            "flag": [True, False, True, True, False, False, True],
        }
    )
    again = pd.read_csv(io.StringIO(csv_text(table)))
    assert again.columns.tolist() == ["'=bad", "number", "flag"]
    assert again["'=bad"].tolist()[:6] == ["'=1+1", "'+cmd", "'-2", "'@SUM(A1)", "'\tx", "plain"]
    pd.testing.assert_series_equal(again["number"], table["number"])
    assert again["flag"].tolist() == table["flag"].tolist()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("50 % of a_b & #1 $x$ {y}", r"50 \% of a\_b \& \#1 \$x\$ \{y\}"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("a\\\\b", r"a\textbackslash{}\textbackslash{}b"),
        ("^^41 ~", r"\textasciicircum{}\textasciicircum{}41 \textasciitilde{}"),
        ("two\nlines\r\n\nthen", "two lines then"),
        ("[2cm] --x", r"{[}2cm{]} -{}-x"),
        ("--- ", "-{}-{}-"),
        ("a – b ≥ 3", r"a -- b \ensuremath{\ge} 3"),
        ("hidden\u202edna\x00", "hidden?dna?"),
        ("%comment", r"\%comment"),
    ],
)
def test_latex_prints_text_and_obeys_none_of_it(text: str, printed: str) -> None:
    assert escape_latex(text) == printed


def test_a_latex_table_has_as_many_cells_as_columns() -> None:
    rows = [["a & b", "1 %", r"\\ \end{tabular}"], ["[x]", "", "–"]]
    text = latex_table(DataTable("Cap_tion.", ["one", "two", "three"], rows), label="some-table")
    assert text.count(r"\begin{tabular}{lll}") == text.count(r"\end{tabular}") == 1
    assert r"\caption{Cap\_tion.}\label{tab:some-table}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 2
    long = latex_table(DataTable("Long.", ["x"], [["y"]] * 41), label="long")
    assert r"\begin{longtable}" in long
    assert r"\begin{tabular}" not in long
