"""Descriptions of what latents stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup, escape

from persona_probe.errors import PersonaProbeError
from persona_probe.figures.highlighting import highlight, shown_activation, shown_token
from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go


FIRING_COLUMNS = ("latent", "label", "value", "auroc", "low", "high", "n")
_SHOWN = 10
_WORDS = 6
CONTEXT = 40
"""Tokens shown before and after the strongest one."""


@dataclass(frozen=True)
class LatentExample:
    """One dialogue, with one latent's activation at each token.

    Attributes:
        latent: the latent's number.
        dialogue: the dialogue's id, or the start of its text.
        tokens: the text in pieces, one per token.
        activations: one per token; NaN where none was read (sinks, the beginning of sequence, what follows the span).
        start: the token at which the span begins.
        stop: the token after the span's last token.
        peak: the token of the span at which the latent is most active.
        labels: the dialogue's labels, as text.
    """

    latent: int
    dialogue: str
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    start: int
    stop: int
    peak: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The activation at the peak."""
        return self.activations[self.peak]

    def around(self, context: int = CONTEXT) -> LatentExample:
        """This example, cut to ``context`` tokens on either side of the peak."""
        first, last = max(0, self.peak - context), min(len(self.tokens), self.peak + context + 1)
        return LatentExample(
            self.latent,
            self.dialogue,
            self.tokens[first:last],
            self.activations[first:last],
            max(0, self.start - first),
            min(self.stop, last) - first,
            self.peak - first,
            self.labels,
        )

    def record(self) -> dict[str, Any]:
        """As plain JSON; an activation that was not read is null."""
        return {
            "dialogue": self.dialogue,
            "labels": dict(self.labels),
            "tokens": list(self.tokens),
            "activations": [None if math.isnan(value) else round(value, 4) for value in self.activations],
            "start": self.start,
            "stop": self.stop,
            "peak": self.peak,
        }

    @classmethod
    def from_record(cls, latent: int, record: Mapping[str, Any]) -> LatentExample:
        """The example of a latent that `record` wrote."""
        acts = tuple(math.nan if value is None else float(value) for value in record["activations"])
        start, stop, peak = (int(record[name]) for name in ("start", "stop", "peak"))
        return cls(
            latent, str(record["dialogue"]), tuple(record["tokens"]), acts, start, stop, peak, dict(record["labels"])
        )

    def to_html(self, *, scale: float | None = None) -> str:
        """The tokens, shaded by activation (`persona_probe.figures.highlighting.highlight`)."""
        return str(
            highlight(self.tokens, self.activations, start=self.start, stop=self.stop, peak=self.peak, scale=scale)
        )

    def _repr_html_(self) -> str:
        return self.around().to_html()


@dataclass(frozen=True)
class LatentDescription:
    """What is known about one latent.

    Attributes:
        latent: the latent's number.
        mean: its mean activation over dialogues.
        frequency: share of tokens at which it is active.
        examples: the dialogues in which it is most active, the strongest first.
        promoted: the tokens whose logits its decoder row raises most, directly through the unembedding, and how far.
        suppressed: the tokens whose logits it lowers most.
        firing: from `persona_probe.latents.firing_by`: how well its activation separates each value of a label from
            the others.
        cosines: of its decoder row with the directions that were given, at the SAE's layer.
        link: its page on Neuronpedia, or None.
    """

    latent: int
    mean: float
    frequency: float
    examples: list[LatentExample]
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    firing: pd.DataFrame
    cosines: dict[str, float]
    link: str | None

    def best(self, label: str) -> pd.Series[Any] | None:
        """The value of ``label`` that it fires for most, or None where that was not measured.

        It is the largest AUROC of all values: its interval is that of one value, and does not allow for the choice.
        """
        rows = self.firing[self.firing["label"] == label]
        return None if rows.empty else rows.iloc[int(rows["auroc"].to_numpy(dtype=float).argmax())]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LatentDescription:
        """The description that `record` wrote."""
        latent = int(record["latent"])
        firing = pd.DataFrame(record["firing"], columns=list(FIRING_COLUMNS[1:]))
        firing.insert(0, "latent", latent)
        return cls(
            latent,
            float(record["mean"]),
            float(record["frequency"]),
            [LatentExample.from_record(latent, example) for example in record["examples"]],
            [(str(token), float(logit)) for token, logit in record["promoted"]],
            [(str(token), float(logit)) for token, logit in record["suppressed"]],
            firing,
            {str(name): float(value) for name, value in record["cosines"].items()},
            record["link"],
        )

    def record(self, context: int = CONTEXT) -> dict[str, Any]:
        """As plain JSON, with ``context`` tokens on either side of each example's peak."""
        return {
            "latent": self.latent,
            "mean": self.mean,
            "frequency": self.frequency,
            "examples": [example.around(context).record() for example in self.examples],
            "promoted": [list(pair) for pair in self.promoted],
            "suppressed": [list(pair) for pair in self.suppressed],
            "firing": [
                dict(zip(FIRING_COLUMNS[1:], row, strict=True))
                for row in self.firing[list(FIRING_COLUMNS[1:])].astype(object).itertuples(index=False, name=None)
            ],
            "cosines": self.cosines,
            "link": self.link,
        }


@dataclass(frozen=True)
class LatentDescriptions(Result):
    """Several latents' descriptions, in the order they were asked for.

    Attributes:
        descriptions: one per latent.
        source: model, SAE and span, as in `LatentStatistics`.
    """

    descriptions: list[LatentDescription]
    source: dict[str, Any]

    def __iter__(self) -> Iterator[LatentDescription]:
        """The descriptions, one after the other."""
        return iter(self.descriptions)

    def __len__(self) -> int:
        """How many latents are described."""
        return len(self.descriptions)

    def __getitem__(self, latent: int) -> LatentDescription:
        """The description of the latent with this number.

        Raises:
            PersonaProbeError: if it is not among them.
        """
        for description in self.descriptions:
            if description.latent == latent:
                return description
        known = ", ".join(str(description.latent) for description in self.descriptions)
        raise PersonaProbeError(f"latent {latent} was not described; there are {known}")

    def to_frame(self) -> pd.DataFrame:
        """One row per latent: numbers, tokens as text, and for each label the value it fires for most, with AUROC."""
        return pd.DataFrame([_row(description) for description in self.descriptions])

    def records(self, context: int = CONTEXT) -> list[dict[str, Any]]:
        """All as plain JSON: a run folder's ``tables/latent_cards.json``, which the report shows."""
        return [description.record(context) for description in self.descriptions]

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping[str, Any]], source: Mapping[str, Any] | None = None
    ) -> LatentDescriptions:
        """The descriptions that `records` wrote (a run folder's ``tables/latent_cards.json``); needs no torch."""
        return cls([LatentDescription.from_record(record) for record in records], dict(source or {}))

    @property
    def firing(self) -> pd.DataFrame:
        """One row per latent, label and value: how well the latent's activation separates the value from the others."""
        parts = [one.firing for one in self.descriptions if len(one.firing)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FIRING_COLUMNS))

    def plot(self) -> go.Figure:
        """For each latent and label the value that it fires for most, with the AUROC and its interval.

        Raises:
            PersonaProbeError: if the dialogues had no label with two values.
        """
        from persona_probe.figures.latent_firing import latent_firing

        firing = self.firing
        if firing.empty:
            raise PersonaProbeError(
                "there is nothing to draw: the dialogues had no label (persona, topic) with at least two values; "
                "label them with dialogue.with_labels(...), or see .to_frame()"
            )
        return latent_firing(firing)

    def headline(self) -> str:
        """How many latents are described, of which SAE and model."""
        where = f" of {self.source['sae']} in {self.source['model']}" if {"sae", "model"} <= set(self.source) else ""
        return f"{len(self)} latents{where}"

    def _repr_html_(self) -> str:
        parts = [Markup("<p>{}</p>").format(self.headline())]
        for one in self.descriptions[:_SHOWN]:
            tokens = ", ".join(shown_token(token).strip() for token, _ in one.promoted[:_WORDS])
            example = Markup(one.examples[0].around(12).to_html()) if one.examples else Markup("never active")
            about = f"mean {shown_activation(one.mean)}, active at {one.frequency:.1%} of tokens; promotes {tokens}"
            parts.append(Markup("<p><b>latent {}</b>: {}{}<br>{}</p>").format(one.latent, about, _fires(one), example))
        if len(self) > _SHOWN:
            parts.append(Markup("<p>and {} more: see .to_frame()</p>").format(len(self) - _SHOWN))
        return str(Markup("").join(parts))


def _row(one: LatentDescription) -> dict[str, Any]:
    row: dict[str, Any] = {"latent": one.latent, "mean": one.mean, "frequency": one.frequency}
    for label in one.firing["label"].unique():
        best = one.best(label)
        if best is not None:
            row |= {label: best["value"], f"{label}_auroc": best["auroc"]}
    row |= {f"cosine {name}": value for name, value in one.cosines.items()}
    for name, tokens in (("promoted", one.promoted), ("suppressed", one.suppressed)):
        row[name] = ", ".join(shown_token(token).strip() for token, _ in tokens)
    return row | {"max": one.examples[0].value if one.examples else 0.0, "link": one.link}


def _fires(one: LatentDescription) -> Markup:
    """The values of labels that the latent fires for most."""
    values = [(label, one.best(label)) for label in one.firing["label"].unique()]
    parts = [f"{label} {best['value']} (AUROC {best['auroc']:.2f})" for label, best in values if best is not None]
    return escape("; fires for " + ", ".join(parts) if parts else "")
