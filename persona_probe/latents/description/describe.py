"""What a latent stands for: its examples, its tokens, the labels it fires for, its page on Neuronpedia."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.unembedding import top_tokens
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.description.examples import CONTEXT, LatentExample, check_source, top_examples
from persona_probe.latents.description.firing import FIRING_COLUMNS, firing_by, latent_activations
from persona_probe.latents.description.highlighting import shown_activation, shown_token
from persona_probe.latents.encoding.encode import LatentStatistics, encode_latents
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model

LABELS = ("persona", "topic")
_SHOWN = 10
_WORDS = 6


@dataclass(frozen=True)
class LatentDescription:
    """What is known of one latent.

    Attributes:
        latent: which.
        mean: its mean activation over dialogues.
        frequency: share of tokens at which it is active.
        examples: the dialogues in which it is most active, the strongest first.
        promoted: tokens whose logits its decoder row raises most, straight through the unembedding, and how far.
        suppressed: those it lowers most.
        firing: of `persona_probe.firing_by`: how well its activation tells each value of a label from the rest.
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
        """The value of ``label`` that it fires for most, or None where that was not measured."""
        rows = self.firing[self.firing["label"] == label]
        return None if rows.empty else rows.iloc[int(rows["auroc"].to_numpy(dtype=float).argmax())]

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
class LatentDescriptions:
    """Several latents' descriptions, in the order they were asked for.

    Attributes:
        descriptions: one a latent.
        source: model, SAE and span, as in `LatentStatistics`.
    """

    descriptions: list[LatentDescription]
    source: dict[str, Any]

    def __iter__(self) -> Iterator[LatentDescription]:
        """One after the other."""
        return iter(self.descriptions)

    def __len__(self) -> int:
        """How many."""
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
        """One row a latent: numbers, tokens as text, and for each label the value it fires for most, with AUROC."""
        return pd.DataFrame([_row(description) for description in self.descriptions])

    def records(self, context: int = CONTEXT) -> list[dict[str, Any]]:
        """All as plain JSON: what a run folder holds as ``tables/latent_cards.json``, and the report shows."""
        return [description.record(context) for description in self.descriptions]

    def _repr_html_(self) -> str:
        parts = [Markup("<p>{} latents of {} in {}</p>").format(len(self), self.source["sae"], self.source["model"])]
        for one in self.descriptions[:_SHOWN]:
            tokens = ", ".join(shown_token(token).strip() for token, _ in one.promoted[:_WORDS])
            example = Markup(one.examples[0].around(12).to_html()) if one.examples else Markup("never active")
            about = f"mean {shown_activation(one.mean)}, active at {one.frequency:.1%} of tokens; promotes {tokens}"
            parts.append(Markup("<p><b>latent {}</b>: {}{}<br>{}</p>").format(one.latent, about, _fires(one), example))
        if len(self) > _SHOWN:
            parts.append(Markup("<p>and {} more: see .to_frame()</p>").format(len(self) - _SHOWN))
        return str(Markup("").join(parts))


def describe_latents(
    sae: Sae,
    model: Model,
    latents: Sequence[int],
    dialogues: Sequence[Dialogue],
    *,
    statistics: LatentStatistics | None = None,
    labels: Sequence[str] = LABELS,
    n_examples: int = 5,
    k_tokens: int = 10,
    directions: Mapping[str, Direction] | None = None,
    span: str = "generation",
    progress: bool = False,
) -> LatentDescriptions:
    """What latents stand for, from the texts in which they are active and the tokens that they write.

    Top examples show the extreme only, and the tokens (`persona_probe.directions.unembedding.top_tokens`) only what a
    latent writes directly: of early layers that says little. Firing by label uses all dialogues. None of these says
    that a latent causes anything; steering does (`persona_probe.steer_latents`).

    Args:
        sae: the SAE.
        model: whose activations are read.
        latents: which.
        dialogues: what it reads.
        statistics: of these dialogues in this model (`persona_probe.encode_latents`), if they are there already.
        labels: labels of the dialogues to tell apart by activation. Of the default ones (persona, topic) those are
            left out that the dialogues do not have, or have one value of.
        n_examples: top examples a latent.
        k_tokens: promoted and suppressed tokens a latent.
        directions: by name; the cosine of each with the latent's decoder row is given.
        span: which tokens, if there are no ``statistics``.
        progress: show bars.

    Raises:
        PersonaProbeError: if a latent or a label does not exist, or ``statistics`` are of something else.
    """
    wanted = sae.check_latents(latents)
    if statistics is None:
        (statistics,) = encode_latents(sae, [model], dialogues, span, examples=n_examples, progress=progress)
    check_source(sae, model, statistics, dialogues)
    cosines = _cosines(sae, wanted, directions or {})
    promoted, suppressed = _tokens(sae, model, wanted, k_tokens)
    told = _told(dialogues) if tuple(labels) == LABELS else list(labels)
    firing = pd.DataFrame(columns=list(FIRING_COLUMNS))
    if told:
        own_span = statistics.source["span"]
        # Whoever made the statistics was asked already whether a bad fit is allowed.
        acts = latent_activations(sae, model, dialogues, wanted, own_span, allow=True, progress=progress)
        firing = firing_by(acts, dialogues, told, latents=wanted)
    examples = top_examples(sae, model, statistics, dialogues, wanted, n_examples)
    mean, frequency = statistics.mean, statistics.frequency
    return LatentDescriptions(
        [
            LatentDescription(
                latent,
                float(mean[latent]),
                float(frequency[latent]),
                [example for example in examples if example.latent == latent],
                promoted[place],
                suppressed[place],
                firing[firing["latent"] == latent].reset_index(drop=True),
                cosines[place],
                sae.neuronpedia(latent),
            )
            for place, latent in enumerate(wanted)
        ],
        dict(statistics.source),
    )


def _told(dialogues: Sequence[Dialogue]) -> list[str]:
    """The default labels that these dialogues have two values of."""
    values = {label: {str(each.labels[label]) for each in dialogues if each.labels.get(label)} for label in LABELS}
    return [label for label, seen in values.items() if len(seen) > 1]


def _tokens(
    sae: Sae, model: Model, latents: Sequence[int], k: int
) -> tuple[list[list[tuple[str, float]]], list[list[tuple[str, float]]]]:
    """Promoted and suppressed tokens of each latent."""
    # One reading of the unembedding for all: each "layer" of this direction is a latent's decoder row.
    rows = sae.rows(latents).float().cpu().numpy()
    table = top_tokens(Direction(rows, tuple(range(len(latents)))), model, k=k)

    def end(side: str) -> list[list[tuple[str, float]]]:
        found: list[list[tuple[str, float]]] = [[] for _ in latents]
        own = table[table["side"] == side].sort_values(["layer", "rank"])
        columns = (own[name].tolist() for name in ("layer", "token", "logit"))
        for place, token, logit in zip(*columns, strict=True):
            found[place].append((token, logit))
        return found

    return end("promoted"), end("suppressed")


def _cosines(sae: Sae, latents: Sequence[int], directions: Mapping[str, Direction]) -> list[dict[str, float]]:
    """Of each latent's decoder row with each direction at the SAE's layer."""
    rows = sae.rows(latents).float().cpu().numpy()
    found: list[dict[str, float]] = [{} for _ in latents]
    for name, direction in directions.items():
        if direction.d_model != sae.d_model:
            raise PersonaProbeError(
                f"the direction {name!r} has d_model={direction.d_model}, the SAE {sae.d_model}: it is another model's"
            )
        other = direction.at(sae.layer)
        values = rows @ other / (np.linalg.norm(rows, axis=1) * np.linalg.norm(other))
        for place, value in enumerate(values):
            found[place][name] = float(value)
    return found


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
    """The values of labels that it fires for most."""
    found = [(label, one.best(label)) for label in one.firing["label"].unique()]
    said = [f"{label} {best['value']} (AUROC {best['auroc']:.2f})" for label, best in found if best is not None]
    return escape("; fires for " + ", ".join(said) if said else "")
