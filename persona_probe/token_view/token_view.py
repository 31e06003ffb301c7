"""Reading dialogues for a token view: projections, probe scores and latent activations at every token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.activations.sinks import SINK_RATIO, sink_tokens
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import check_span
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types, what_is
from persona_probe.latents.description.examples import token_texts
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import resolve_layers
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.token_scoring import parts_of
from persona_probe.statistics.nulls import isotropic_directions
from persona_probe.token_view.view import TokenView

By: TypeAlias = Direction | LayerProbes | tuple[Sae, Sequence[int]]
PROJECTION, SCORE, ACTIVATION = "residual-stream units", "probe score", "latent activation"


def view_tokens(
    model: Model,
    dialogues: Dialogue | Sequence[Dialogue],
    by: By | Mapping[str, By],
    layers: int | Sequence[int] | str = "all",
    *,
    reference: Activations | None = None,
    span: str = "all",
    n_random: int = 32,
    seed: int = 0,
    allow_unrelated: bool = False,
) -> TokenView:
    """Dialogues coloured token by token: by a direction, a probe, latents, or several of these.

    Args:
        model: which model reads; if it is being steered, the steered stream is read.
        dialogues: one or several, with answers or without.
        by: a direction (projection ``h . v / ||v||``), probes (their score ``w . h + b``), or an SAE and the numbers of
            latents (their activation); several by name.
        layers: which layers; a series has those at which it can be read. An SAE is read at its own layer.
        reference: activations that say what is usual, such as the before model's own answers to development questions:
            then projections are coloured from its mean, and numbers are also given in SD over its dialogues.
        span: which tokens are shown (`persona_probe.dialogue.rendering.SPANS`).
        n_random: number of random directions for the null of projections; 0 leaves it out.
        seed: of the random directions.
        allow_unrelated: warn instead of refusing what belongs to an unrelated model.

    Returns:
        A view that shows itself in a notebook; ``save("x.html")`` writes it as a page.

    Raises:
        PersonaProbeError: if there is nothing to show, a series has none of the layers, the reference lacks one of
            them, or for the same reasons as `persona_probe.capture`.
    """
    check_types(
        model=(model, Model),
        dialogues=(dialogues, Dialogue, [Dialogue]),
        reference=(reference, Activations, None),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    given = [dialogues] if isinstance(dialogues, Dialogue) else list(dialogues)
    named = _named(by)
    if not given or not named:
        raise PersonaProbeError(f"view_tokens: there are no {'series' if given else 'dialogues'} to show")
    if n_random < 0:
        raise PersonaProbeError(f"view_tokens: n_random={n_random}; give 0 or more random directions")
    asked = resolve_layers(layers, model.n_layers)
    at = {name: _layers_of(name, one, asked, model) for name, one in named.items()}
    read = capture(model, given, "all", "tokens", sorted({layer for of_series in at.values() for layer in of_series}))
    sinks = _sinks(read)
    tokens, inside = _tokens(model, given, read, span)
    null = _Null(n_random, seed, reference)
    tables = [
        tokens.assign(
            series=one.name,
            unit=one.unit,
            layer=one.layer,
            value=one.values[inside],
            centre=one.centre,
            sd=one.sd,
            random=one.random,
            sink=sinks[inside, read.layers.index(one.layer)],
        )
        for name, source in named.items()
        for one in _series(
            name, source, _at_layers(read, at[name]), _usable(sinks, read, at[name]), null, model, allow_unrelated
        )
    ]
    return TokenView(pd.concat(tables, ignore_index=True))


@dataclass(frozen=True)
class _Series:
    """One series at one layer: ``values`` has a number for each token that was read."""

    name: str
    unit: str
    layer: int
    values: Float[np.ndarray, "... token"]
    centre: float = 0.0
    sd: float = math.nan
    random: float = math.nan


@dataclass(frozen=True)
class _Null:
    """How many random directions a projection is compared with, and what is usual."""

    n: int
    seed: int
    reference: Activations | None
    known: dict[int, float] = field(default_factory=dict)

    def at(self, read: Activations, layer: int, usable: Bool[np.ndarray, "... token"]) -> float:
        """How far from the centre 97.5 % of tokens are along random directions, in residual-stream units."""
        if not self.n or not usable.any():
            return math.nan
        if layer not in self.known:
            random = isotropic_directions(self.n, read.values.shape[2], self.seed)
            centre = 0.0 if self.reference is None else self.reference.at(layer).mean(axis=0)
            self.known[layer] = float(np.quantile(np.abs((read.at(layer)[usable] - centre) @ random.T), 0.975))
        return self.known[layer]


def _named(by: By | Mapping[str, By]) -> dict[str, By]:
    if isinstance(by, Mapping):
        return {str(name): one for name, one in by.items()}
    if isinstance(by, Direction):
        return {by.name: by}
    return {"probe" if isinstance(by, LayerProbes) else "": by}


def _layers_of(name: str, one: By, asked: Sequence[int], model: Model) -> list[int]:
    """The layers at which a series is read."""
    if isinstance(one, Direction | LayerProbes):
        has = one.layers if isinstance(one, Direction) else one.layers_
        readable = [layer for layer in asked if layer in has]
        if not readable:
            raise PersonaProbeError(
                f"view_tokens: {name or 'the series'} has none of the layers {', '.join(map(str, asked))}; it has "
                f"{', '.join(map(str, has))}"
            )
        return readable
    if not (isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], Sae)):
        raise PersonaProbeError(
            f"view_tokens: by is {what_is(one)}; give a Direction, LayerProbes, (sae, latents), or several by name"
        )
    one[0].check_model(model)
    return [one[0].layer]


def _series(
    name: str,
    source: By,
    read: Activations,
    usable: Bool[np.ndarray, "token layer"],
    null: _Null,
    model: Model,
    allow_unrelated: bool,
) -> Iterator[_Series]:
    """The values of one source at every token, layer by layer."""
    if isinstance(source, Direction | LayerProbes):
        score = source.project if isinstance(source, Direction) else source.decision_function
        values = score(read, allow_unrelated=allow_unrelated)
        usual = (
            None
            if null.reference is None
            else score(_at_layers(null.reference, read.layers), allow_unrelated=allow_unrelated)
        )
        for column, layer in enumerate(read.layers):
            one = _Series(name, PROJECTION, layer, values[:, column])
            if usual is not None:
                reference = usual[:, column].astype(float)
                one = replace(one, sd=float(reference.std(ddof=1)) if len(reference) > 1 else math.nan)
            if isinstance(source, LayerProbes):
                # A probe has its own boundary, at 0.
                yield replace(one, unit=SCORE)
            else:
                centre = 0.0 if usual is None else float(usual[:, column].astype(float).mean())
                yield replace(one, centre=centre, random=null.at(read, layer, usable[:, column]))
        return
    sae, latents = source[0], source[0].check_latents(source[1])
    hidden = torch.from_numpy(read.at(sae.layer))
    wanted = torch.tensor(latents, device=model.device)
    with torch.inference_mode():
        parts = [
            sae.encode_some(part.to(model.device), wanted).float().cpu()
            for part in torch.split(hidden, sae.tokens_at_once)
        ]
    acts = torch.cat(parts).numpy()
    for place, latent in enumerate(latents):
        series = name if name and len(latents) == 1 else f"{name} latent {latent}".strip()
        yield _Series(series, ACTIVATION, sae.layer, acts[:, place])


def _at_layers(activations: Activations, layers: Sequence[int]) -> Activations:
    values = np.stack([activations.at(layer) for layer in layers], axis=1)
    return replace(activations, values=values, layers=tuple(layers))


def _usable(
    sinks: Bool[np.ndarray, "token layer"], read: Activations, layers: Sequence[int]
) -> Bool[np.ndarray, "token layer"]:
    return cast(np.ndarray, ~sinks[:, [read.layers.index(layer) for layer in layers]])


def _sinks(read: Activations) -> Bool[np.ndarray, "token layer"]:
    """Which tokens are attention sinks at each layer, dialogue by dialogue."""
    rows = read.table["dialogue"].to_numpy()
    sinks = np.zeros(read.values.shape[:2], dtype=bool)
    for row in np.unique(rows):
        hidden = torch.from_numpy(read.values[rows == row]).transpose(0, 1)
        real = torch.ones(hidden.shape[:2], dtype=torch.bool)
        sinks[rows == row] = sink_tokens(hidden, real, SINK_RATIO).T.numpy()
    return sinks


def _tokens(
    model: Model, dialogues: Sequence[Dialogue], read: Activations, span: str
) -> tuple[pd.DataFrame, Bool[np.ndarray, "... token"]]:
    """One row per token of the span, and a mask of these tokens among all that were read."""
    encoded = model.encode(dialogues)
    wanted = [item.span(check_span(span)) for item in encoded]
    row, position = read.table["dialogue"].to_numpy(), read.table["position"].to_numpy()
    inside = (position >= np.array([one.start for one in wanted])[row]) & (
        position < np.array([one.stop for one in wanted])[row]
    )
    pieces = [token_texts(model, item) for item in encoded]
    special = set(model.tokenizer.all_special_ids)
    table = read.table[["dialogue", "position", "token_id"]].assign(
        name=[f"{one + 1}. {_name(dialogues[one])}" for one in row],
        token=[pieces[one][place] for one, place in zip(row, position, strict=True)],
        part=parts_of(encoded, row, position),
        special=read.table["token_id"].isin(special),
    )
    return table[inside].reset_index(drop=True), inside


def _name(dialogue: Dialogue) -> str:
    """The dialogue's id, or the start of its text."""
    if dialogue.id is not None:
        return dialogue.id
    text = dialogue.question or dialogue.messages[0].content
    return text if len(text) <= 60 else f"{text[:59]}…"
