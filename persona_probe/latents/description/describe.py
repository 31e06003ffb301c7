"""What a latent stands for: its examples, its tokens, the labels it fires for, its page on Neuronpedia."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.top_tokens import top_tokens
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.description.describe_result import FIRING_COLUMNS, LatentDescription, LatentDescriptions
from persona_probe.latents.description.examples import check_source, top_examples
from persona_probe.latents.description.firing import firing_by, latent_activations
from persona_probe.latents.encoding.encode import LatentStatistics, encode_latents
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model

LABELS = ("persona", "topic")


def describe_latents(
    model: Model,
    sae: Sae,
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

    Top examples show only the extreme cases, and the tokens (`persona_probe.directions.top_tokens.top_tokens`) only
    what a latent writes directly, which says little in early layers. Firing by label uses all dialogues. None of these
    says that a latent causes anything; steering does (`persona_probe.latents.steer_latents`).

    Args:
        model: whose activations are read.
        sae: the SAE.
        latents: which latents to describe.
        dialogues: what the model reads.
        statistics: of these dialogues in this model (`persona_probe.latents.encode_latents`), if they exist already.
        labels: labels of the dialogues whose values are to be separated by activation. A default label (persona, topic)
            is left out if the dialogues do not have it, or have only one value of it.
        n_examples: number of top examples per latent.
        k_tokens: number of promoted and of suppressed tokens per latent.
        directions: by name; the cosine of each with the latent's decoder row is given.
        span: which tokens, if there are no ``statistics``.
        progress: show progress bars.

    Raises:
        PersonaProbeError: if a latent or a label does not exist, or ``statistics`` are of another model, SAE or data.
    """
    check_types(
        model=(model, Model),
        sae=(sae, Sae),
        dialogues=(dialogues, [Dialogue]),
        statistics=(statistics, LatentStatistics, None),
        labels=(labels, [str]),
        n_examples=(n_examples, WHOLE),
        k_tokens=(k_tokens, WHOLE),
        directions=(directions, {str: Direction}, None),
    )
    wanted = sae.check_latents(latents)
    if statistics is None:
        (statistics,) = encode_latents([model], sae, dialogues, span, examples=n_examples, progress=progress)
    check_source(sae, model, statistics, dialogues)
    cosines = _cosines(sae, wanted, directions or {})
    promoted, suppressed = _tokens(sae, model, wanted, k_tokens)
    separated = _separable(dialogues) if tuple(labels) == LABELS else list(labels)
    firing = pd.DataFrame(columns=list(FIRING_COLUMNS))
    if separated:
        span_read = statistics.source["span"]
        # Whether a bad fit is allowed was decided when the statistics were made.
        acts = latent_activations(model, sae, dialogues, wanted, span_read, allow_unrelated=True, progress=progress)
        firing = firing_by(acts, dialogues, separated, latents=wanted)
    examples = top_examples(model, sae, statistics, dialogues, wanted, n_examples)
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


def _separable(dialogues: Sequence[Dialogue]) -> list[str]:
    """The default labels of which these dialogues have at least two values."""
    values = {label: {str(each.labels[label]) for each in dialogues if each.labels.get(label)} for label in LABELS}
    return [label for label, seen in values.items() if len(seen) > 1]


def _tokens(
    sae: Sae, model: Model, latents: Sequence[int], k: int
) -> tuple[list[list[tuple[str, float]]], list[list[tuple[str, float]]]]:
    """Promoted and suppressed tokens of each latent."""
    # The unembedding is applied once for all latents: each "layer" of this direction is a latent's decoder row.
    rows = sae.rows(latents).float().cpu().numpy()
    table = top_tokens(model, rows, range(len(latents)), k=k)

    def end(side: str) -> list[list[tuple[str, float]]]:
        tokens: list[list[tuple[str, float]]] = [[] for _ in latents]
        rows = table[table["side"] == side].sort_values(["layer", "rank"])
        columns = (rows[name].tolist() for name in ("layer", "token", "logit"))
        for place, token, logit in zip(*columns, strict=True):
            tokens[place].append((token, logit))
        return tokens

    return end("promoted"), end("suppressed")


def _cosines(sae: Sae, latents: Sequence[int], directions: Mapping[str, Direction]) -> list[dict[str, float]]:
    """Cosines of each latent's decoder row with each direction at the SAE's layer."""
    rows = sae.rows(latents).float().cpu().numpy()
    cosines: list[dict[str, float]] = [{} for _ in latents]
    for name, direction in directions.items():
        if direction.d_model != sae.d_model:
            raise PersonaProbeError(
                f"the direction {name!r} has d_model={direction.d_model} and the SAE {sae.d_model}: the direction is "
                "of another model"
            )
        other = direction.at(sae.layer)
        values = rows @ other / (np.linalg.norm(rows, axis=1) * np.linalg.norm(other))
        for place, value in enumerate(values):
            cosines[place][name] = float(value)
    return cosines
