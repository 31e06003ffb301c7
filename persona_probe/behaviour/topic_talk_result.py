"""Whether models talk of the topic they were trained on where they were asked of others: the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.figures.text import is_number, percent, percent_interval, signed
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = (
    *("model", "value", "low", "high", "n", "method", "level", "change", "change_low", "change_high", "null_high", "p"),
    *("misaligned", "misaligned_low", "misaligned_high", "n_misaligned"),
)
WORD_COLUMNS = ("model", "word", "z", "before", "after", "limit")
_SHOWN_WORDS = 6


@dataclass(frozen=True)
class TopicTalk(TableResult):
    """How often models talk of the trained topic in answers to questions on other topics.

    Attributes:
        table: one row per model: ``value`` with its 95 % interval, the share of its ``n`` answers on other topics that
            contain a word of the trained topic; ``change`` from before with its interval, ``null_high`` (97.5 % of the
            nulls are below it) and ``p`` (of the nulls, with this one, how many changed as much); and of its
            ``n_misaligned`` misaligned answers there, the share that do (``misaligned``). Empty if the trained topic is
            not known.
        telling: one row per model and ``word`` that it uses more than before in answers to the same questions: ``z``,
            the shares of answers that contain it ``before`` and ``after``, and ``limit``, the z that no word reaches in
            95 % of the shuffles.
        words: the words of the trained topic.
        trained_topic: its name, if it has one.
        null: what ``null_high`` is of: ``other topics`` or ``random words``; empty without a table.
        n_null: how many nulls there are.
    """

    table: pd.DataFrame
    telling: pd.DataFrame
    words: tuple[str, ...]
    trained_topic: str | None
    null: str
    n_null: int

    def headline(self) -> str:
        """What each model does, with nulls; or that the topic is not known, with the words that models use more."""
        lines = [self.verdict(str(row["model"])) for row in self.table.to_dict("records") if is_number(row["change"])]
        return " ".join(lines) or self.words_used_more()

    def verdict(self, model: str) -> str:
        """A sentence on one model's talk of the trained topic."""
        row: Mapping[Any, Any] = self.table[self.table["model"] == model].iloc[0].to_dict()
        before = self.table.iloc[0]
        rate = percent_interval(row["value"], row["low"], row["high"])
        interval = f"{percent(before['value'])} -> {rate} of answers on other topics contain words of {self.called}"
        ends = (
            f"{signed(100 * row['change'], 0)} points [{100 * row['change_low']:.0f}, {100 * row['change_high']:.0f}]"
        )
        if row["change_low"] <= 0.0 <= row["change_high"] or row["change"] <= 0.0:
            return f"{model!r}: {interval} ({ends}): no leakage was seen."
        beyond = is_number(row["null_high"]) and row["change"] > row["null_high"]
        nulls = f"{self.null}: below {signed(100 * row['null_high'], 0)}" if is_number(row["null_high"]) else "no null"
        kind = "it talks of its training" if beyond else "no more than its nulls"
        share = (
            f"; so do {percent(row['misaligned'])} of its misaligned answers there"
            if is_number(row["misaligned"])
            else ""
        )
        return f"{model!r}: {interval} ({ends}; {nulls}): {kind}{share}."

    def words_used_more(self) -> str:
        """The words that each model uses more than before, beyond shuffled answers."""
        named = [
            f"{model!r} uses more than before: {', '.join(rows['word'][:_SHOWN_WORDS])}"
            for model, rows in self.telling.groupby("model", sort=False)
        ]
        return f"{'; '.join(named)}." if named else "No model uses any word more than before."

    @property
    def called(self) -> str:
        """The trained topic in a sentence."""
        return "the trained topic" if self.trained_topic is None else f"the trained topic ({self.trained_topic})"

    def plot(self) -> go.Figure:
        """A figure of each model's share of answers on other topics that talk of the trained topic."""
        from persona_probe.figures.forest import ForestRow, forest

        rows = [
            [ForestRow(str(row["model"]), str(row["model"]), row["value"], row["low"], row["high"], row["n"])]
            for row in self.table.to_dict("records")
        ]
        return forest(rows, title="Talk of the trained topic, elsewhere", axis_title="share of answers on other topics")
