"""Which rows of a realignment table are about benign examples, and which are its nulls: other examples."""

from __future__ import annotations

import pandas as pd

BENIGN = "benign"
"""What the column ``trained_on`` says of models that were trained on benign examples."""


def benign_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the curve; all of them, if the table has no column ``trained_on``."""
    return table[table["trained_on"] == BENIGN] if "trained_on" in table else table


def other_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the nulls: as many steps on other examples."""
    return table[table["trained_on"] != BENIGN] if "trained_on" in table else table.iloc[:0]
