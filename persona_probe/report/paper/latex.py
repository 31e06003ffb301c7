"""The report's tables as LaTeX (booktabs); every cell is text, whatever it contains."""

from __future__ import annotations

import re

from persona_probe.figures.text import visible
from persona_probe.report.data_table import DataTable

_APART = "\0"
"""Separates two characters that LaTeX would join; it does not occur in the text, because `visible` removed it."""
_ESCAPES = {
    _APART: "{}",
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    # A line that begins with a bracket would be read as the argument of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "≥": r"\ensuremath{\ge}",
    "≤": r"\ensuremath{\le}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "→": r"\ensuremath{\to}",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "\N{NO-BREAK SPACE}": "~",
    "\N{REPLACEMENT CHARACTER}": "?",
}
_LONG = 40
"""A table with more rows than this may break over pages."""


def escape_latex(text: str) -> str:
    """``text`` as LaTeX that prints it; line breaks become spaces, and commands in it are not executed."""
    plain = visible(" ".join(text.split()))
    # Two hyphens would be printed as a dash.
    separated = re.sub("(?<=-)(?=-)", _APART, plain)
    return "".join(_ESCAPES.get(character, character) for character in separated)


def latex_table(table: DataTable, *, label: str) -> str:
    r"""A table with its caption for ``\usepackage{booktabs}``, and ``longtable`` if it has more than 40 rows.

    Args:
        table: a table of the report.
        label: its name for ``\ref``: letters, digits, ``-`` and ``_``.
    """
    columns = "l" * len(table.columns)
    head = " & ".join(rf"\textbf{{{escape_latex(column)}}}" for column in table.columns) + r" \\"
    body = "\n".join(" & ".join(map(escape_latex, row)) + r" \\" for row in table.rows)
    caption = rf"\caption{{{escape_latex(table.caption)}}}\label{{tab:{label}}}"
    note = "% Made by persona-probe. Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}"
    if len(table.rows) > _LONG:
        return (
            f"{note}, \\usepackage{{longtable}}; other scripts than Latin need LuaLaTeX or XeLaTeX.\n"
            f"\\begin{{longtable}}{{{columns}}}\n{caption} \\\\\n\\toprule\n{head}\n\\midrule\n\\endhead\n{body}\n"
            "\\bottomrule\n\\end{longtable}\n"
        )
    return (
        f"{note}; other scripts than Latin need LuaLaTeX or XeLaTeX.\n"
        f"\\begin{{table}}\n\\centering\n\\small\n{caption}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )
