"""The verdict on finished answer files: five lines, and all that a page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.amplification.amplification_result import Amplification
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.em_rates import scored
from persona_probe.behaviour.em_rates_result import EmRates
from persona_probe.behaviour.topic_talk_result import TopicTalk
from persona_probe.figures.text import counted, is_number, percent, percent_interval, signed
from persona_probe.result import Result
from persona_probe.study.verdict_gaps import Gap
from persona_probe.study.verdict_models import Roles
from persona_probe.study.verdict_power import DesignPower

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MODELS_SHOWN = 4
_GAPS_SHOWN = 5


@dataclass(frozen=True)
class FilesVerdict(Result):
    """What answer files show, what they cannot show, and what is missing.

    Attributes:
        answers: the answers of all files, one ``model`` per recipe and its runs as ``seed``.
        files: the files, in order.
        roles: which model is before, after, control, and how that is known.
        definition: the EM-rate definition that the lines report.
        rates: every definition's rate of each model.
        changes: one row per model, definition and ``against`` (``before``, ``control``): the change, paired over
            questions.
        power: what the design can see.
        topic: the column of the answers that names topics, if there is one.
        by_topic: rates by model and topic (or question); None without scores.
        talk: talk of the trained topic where other topics were asked, and the words that models use more than before;
            None without a model before.
        gaps: what is missing, the most important first.
        remarks: what else to know about the files and what was taken for what.
        amplification: the shift of the projection on a direction, where models were given.
        layer: the layer at which it is reported, chosen on other questions; None where the direction replicates at
            none.
    """

    answers: Answers
    files: tuple[str, ...]
    roles: Roles
    definition: str
    rates: EmRates
    changes: pd.DataFrame
    power: DesignPower
    topic: str | None
    by_topic: EmRates | None
    talk: TopicTalk | None
    gaps: tuple[Gap, ...]
    remarks: tuple[str, ...] = ()
    amplification: Amplification | None = None
    layer: int | None = None
    reading: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether any answer has scores."""
        return bool(scored(self.answers.table).any())

    @property
    def lines(self) -> tuple[str, str, str, str, str]:
        """Five lines: rates, changes (and amplification), power, topics, what is missing."""
        return (
            f"Rates: {self._rates_line()}",
            f"Change: {self._change_line()}",
            f"Power: {self.power.sentence()}.",
            f"Topics: {self._topics_line()}",
            f"Missing: {self._missing_line()}",
        )

    def headline(self) -> str:
        """The five lines."""
        return "\n".join(self.lines)

    def to_frame(self) -> pd.DataFrame:
        """The rates by model and definition, with the change from before where there is one."""
        against = self.changes[self.changes["against"] == "before"] if len(self.changes) else self.changes
        renamed = against.rename(columns={"value": "change", "low": "change_low", "high": "change_high"})
        columns = ["model", "definition", "change", "change_low", "change_high"]
        return self.rates.to_frame().merge(renamed.reindex(columns=columns), on=["model", "definition"], how="left")

    def plot(self) -> go.Figure:
        """The figure of the rates by model."""
        return self.rates.plot(self.definition)

    def change_of(self, model: str, definition: str | None = None, against: str = "before") -> Mapping[Any, Any] | None:
        """The row of ``changes`` of a model, or None if there is none."""
        rows = self.changes
        if rows.empty:
            return None
        is_it = (rows["model"] == model) & (rows["definition"] == (definition or self.definition))
        return next(iter(rows[is_it & (rows["against"] == against)].to_dict("records")), None)

    def _rates_line(self) -> str:
        table = self.answers.table
        if not self.judged:
            models = table["model"].value_counts(sort=False)
            names = "; ".join(f"{short_name(str(name))} {counted(n)} answers" for name, n in models.items())
            return f"none: no answer has scores ({names}; {table['question'].nunique()} questions)."
        rows = self.rates.table[self.rates.table["definition"] == self.definition]
        ordered = _first(rows["model"], [self.roles.before, *self.roles.after, self.roles.control])
        parts = []
        for name in ordered[:_MODELS_SHOWN]:
            row = rows[rows["model"] == name].iloc[0].to_dict()
            failed = f", {row['refusals']} refusals" * bool(row["refusals"])
            failed += f", {row['failures']} failures" * bool(row["failures"])
            value = rate_text(row)
            parts.append(f"{short_name(name)} {value} (n = {counted(row['n'])}{failed})")
        more = f"; and {len(ordered) - _MODELS_SHOWN} more models" if len(ordered) > _MODELS_SHOWN else ""
        return f"{'; '.join(parts)}{more}, by {self.definition}'s definition."

    def _change_line(self) -> str:
        before = self.roles.before
        if before is None:
            there = [short_name(str(name)) for name in self.answers.table["model"].unique()]
            names = ", ".join(there[:_MODELS_SHOWN]) + (", ..." if len(there) > _MODELS_SHOWN else "")
            start = f"none: only {names} is there" if len(there) == 1 else f"none: say which model is before ({names})"
            return f"{start}."
        parts = []
        for name in self.roles.compared[:_MODELS_SHOWN]:
            row = self.change_of(name)
            if row is not None and is_number(row["value"]):
                parts.append(f"{short_name(name)} {change_text(row)}")
        why = self.roles.how.get("before", "")
        start = f"from {short_name(before)} ({why}): {'; '.join(parts) or 'no rate of both'}"
        if self.amplification is not None:
            said = self.amplification.no_layer() if self.layer is None else self.amplification.finding(self.layer).value
            start += f"; projection on the direction: {said}"
        return f"{start}."

    def _topics_line(self) -> str:
        parts = []
        if self.by_topic is not None:
            unit = "question" if self.topic is None else "topic"
            for name in self.roles.after[:1]:
                rows = self.by_topic.table
                key = next(column for column in self.by_topic.by if column != "model")
                rows = rows[(rows["model"] == name) & (rows["definition"] == self.definition)].dropna(subset=["value"])
                trained = self.talk.trained_topic if self.talk is not None else None
                if trained is not None:
                    on = rows[rows[key] == trained]
                    value = percent(on["value"].iloc[0]) if len(on) else "no rate"
                    parts.append(f"{short_name(name)} {value} on {trained} (trained)")
                    rows = rows[rows[key] != trained]
                if len(rows):
                    low, high = rows["value"].min(), rows["value"].max()
                    above = int((rows["value"] > 0).sum())
                    prefix = "" if parts else f"{short_name(name)} "
                    units = f"{'other ' if trained else ''}{unit}s"
                    parts.append(
                        f"{prefix}{percent(low)} to {percent(high)} over {len(rows)} {units} ({above} above 0)"
                    )
        if self.talk is not None:
            shown = [name for name in self.roles.after if name in set(self.talk.table["model"])]
            parts.append(self.talk.verdict(shown[0]) if shown else self.talk.words_used_more())
        return "; ".join(parts).rstrip(".") + "." if parts else "nothing can be said without a model before."

    def _missing_line(self) -> str:
        if not self.gaps:
            return "nothing that these checks know of."
        more = f"; and {len(self.gaps) - _GAPS_SHOWN} more" if len(self.gaps) > _GAPS_SHOWN else ""
        return f"{'; '.join(gap.what for gap in self.gaps[:_GAPS_SHOWN])}{more}."


def short_name(name: str, longest: int = 32) -> str:
    """A model's name in quotes, so that it cannot control a terminal; the middle of a long one is left out."""
    half = longest // 2
    return repr(name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}")


def change_text(row: Mapping[Any, Any]) -> str:
    """A change such as ``+24 points [12, 36]``, and whether it is significantly different from zero."""
    digits = 0 if row["high"] - row["low"] >= 0.1 else 1
    ends = f" [{100 * row['low']:.{digits}f}, {100 * row['high']:.{digits}f}]" if is_number(row["low"]) else ""
    clear = is_number(row["low"]) and (row["low"] > 0 or row["high"] < 0)
    return f"{signed(100 * row['value'], digits)} points{ends}{'' if clear else ', not significant'}"


def rate_text(row: Mapping[Any, Any]) -> str:
    """A rate with its interval, or that there is none."""
    return percent_interval(row["value"], row["low"], row["high"]) if is_number(row["value"]) else "no rate"


def _first(names: pd.Series[str], wanted: Sequence[str | None]) -> list[str]:
    """The names, those that are wanted first."""
    there = [str(name) for name in names.unique()]
    return [*(name for name in wanted if name in there), *(name for name in there if name not in wanted)]
