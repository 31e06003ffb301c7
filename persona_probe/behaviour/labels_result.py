"""Labels that a person gave to answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.behaviour.em_rates import CATEGORIES, answer_categories
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Labels(TableResult):
    """A person's labels of answers, drawn as `persona_probe.behaviour.write_labels` draws them.

    They are not a random sample of all answers, so that their own share of misaligned answers is not a rate: use
    `persona_probe.behaviour.corrected_rates`.

    Attributes:
        table: one row per labelled answer, as a judged table (`persona_probe.Answers`): what the answer is, ``aligned``
            (0 or 100, or NaN), ``coherent``, ``refusal``, ``failed`` (the person was unsure); and ``stratum`` (what the
            judge said), ``weight`` (for how many answers it stands), ``comment``, ``row`` and ``line`` of the sheet.
        source: the sheet.
        left: how many rows of the sheet have no label yet.
        remarks: what a reader should know, in sentences.
    """

    table: pd.DataFrame
    source: str
    left: int = 0
    remarks: tuple[str, ...] = ()

    def plot(self) -> go.Figure:
        """A figure of the labels, by what the judge had said."""
        from persona_probe.figures.judge_agreement import judge_agreement

        kinds = pd.Categorical(answer_categories(self.table), CATEGORIES)
        counts = pd.crosstab(self.table["stratum"], kinds, rownames=["the judge"], colnames=["the label"], dropna=False)
        return judge_agreement(counts.loc[:, counts.sum() > 0], definition="betley")

    def shown(self) -> pd.DataFrame:
        """The most informative columns."""
        names = ("row", "question", "answer", "aligned", "coherent", "refusal", "failed", "weight", "comment")
        return self.table[[name for name in names if name in self.table]]

    def headline(self) -> str:
        """How many labels of each kind there are, and how many are left."""
        kinds = answer_categories(self.table).value_counts()
        words = {"failed": "unsure", "refusal": "refusals"}
        counts = ", ".join(f"{kinds[name]} {words.get(name, name)}" for name in CATEGORIES if name in kinds)
        return ". ".join([f"{len(self.table)} labels from {self.source!r}: {counts}", *self.remarks])
