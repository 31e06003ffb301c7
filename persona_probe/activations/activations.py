"""The container that all analyses read: one reduced vector per dialogue and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.stream.layers import several_layers
from persona_probe.statistics.inputs import numeric_array

IDENTITY_COLUMNS = ("id", "question", "group", "seed")
SAME_SOURCE = (
    "model_hash",
    "template_hash",
    "today",
    "span",
    "reduce",
    "sink_ratio",
    "steered",
    "layer_convention",
)
"""What must be the same in the sources of parts that are joined."""


@dataclass(frozen=True)
class Activations:
    """Residual-stream activations, reduced over a span of each dialogue.

    Attributes:
        values: ``(dialogue, layer, d_model)``, float32.
        table: one row per dialogue: ``id``, ``question``, ``group``, ``seed``, ``n_tokens`` and the dialogue's labels.
        layers: the layer numbers along axis 1.
        source: where they come from: ``model``, ``model_hash``, ``template_hash``, ``span``, ``reduce``,
            ``layer_convention``.

    >>> table = pd.DataFrame({"id": ["a", "b"], "persona": ["doctor", "villain"]})
    >>> activations = Activations(np.array([[[1.0, 5.0]], [[2.0, 7.0]]]), table, layers=(3,))
    >>> activations.where(activations.table["persona"] == "villain").at(3)
    array([[2., 7.]])
    >>> activations
    Activations(2 dialogues, layer 3, d_model=2)
    """

    values: Float[np.ndarray, "dialogue layer d_model"]
    table: pd.DataFrame
    layers: tuple[int, ...]
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise if values, table and layers do not match, or a value is not finite."""
        check_types(table=(self.table, pd.DataFrame), source=(self.source, Mapping))
        object.__setattr__(self, "layers", tuple(several_layers(self.layers)))
        if not isinstance(self.values, np.ndarray) or self.values.dtype.kind != "f":
            object.__setattr__(self, "values", numeric_array(self.values, "values"))
        if self.values.ndim != 3 or self.values.shape[:2] != (len(self.table), len(self.layers)):
            raise PersonaProbeError(
                f"activations of shape {self.values.shape} do not match {len(self.table)} dialogues and "
                f"{len(self.layers)} layers; expected (dialogue, layer, d_model)"
            )
        finite = np.isfinite(self.values).all(axis=2)
        if not finite.all():
            row, layer = np.argwhere(~finite)[0]
            raise PersonaProbeError(
                f"activations of dialogue {self.table['id'].iloc[row]!r} at layer {self.layers[layer]} are not finite "
                f"({int((~finite).any(axis=1).sum())} dialogues affected); load the model in float32 or bfloat16"
            )

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.table)

    def __repr__(self) -> str:
        """Shape, layers, and what was read, on one line."""
        n_dialogues, n_layers, d_model = self.values.shape
        unit = "tokens" if self.source.get("reduce") == "tokens" else "dialogues"
        layers = f"layer {self.layers[0]}" if n_layers == 1 else f"layers {self.layers[0]} to {self.layers[-1]}"
        if self.layers not in ((self.layers[0],), tuple(range(self.layers[0], self.layers[-1] + 1))):
            layers = f"{n_layers} layers"
        about = [str(self.source[key]) for key in ("model", "span", "reduce") if self.source.get(key) is not None]
        return f"Activations({n_dialogues} {unit}, {layers}, d_model={d_model}{''.join(f', {one}' for one in about)})"

    def where(self, keep: Sequence[bool] | pd.Series | np.ndarray) -> Activations:
        """The dialogues for which ``keep`` (one truth value per dialogue) is true."""
        mask = numeric_array(keep, "where: keep").astype(bool)
        if mask.shape != (len(self),):
            raise PersonaProbeError(f"where: got {mask.shape} truth values for {len(self)} dialogues")
        return replace(self, values=self.values[mask], table=self.table[mask].reset_index(drop=True))

    def at(self, layer: int) -> Float[np.ndarray, "dialogue d_model"]:
        """The activations of one layer."""
        if layer not in self.layers:
            raise PersonaProbeError(f"layer {layer} was not captured; captured: {', '.join(map(str, self.layers))}")
        return self.values[:, self.layers.index(layer)]

    @classmethod
    def concatenate(cls, parts: Sequence[Activations]) -> Activations:
        """The parts of one capture, one after the other; for ``tokens``, the column ``dialogue`` is renumbered.

        Raises:
            PersonaProbeError: if there is no part, or layers, width, model, template, span or reduction differ.
        """
        check_types(parts=(parts, [Activations]))
        if not parts:
            raise PersonaProbeError("concatenate: there are no activations: the list is empty")
        first = parts[0]
        for number, part in enumerate(parts):
            for name, expected, value in (
                ("layers", first.layers, part.layers),
                ("d_model", first.values.shape[2], part.values.shape[2]),
                *((key, first.source.get(key), part.source.get(key)) for key in SAME_SOURCE),
            ):
                if expected != value:
                    raise PersonaProbeError(
                        f"activations cannot be concatenated: {name} is {expected} in part 0, {value} in part {number}"
                    )
        values = np.concatenate([part.values for part in parts])
        return cls(values, _joined_tables(parts), first.layers, joined_source([part.source for part in parts]))


def joined_source(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The source of all parts of a capture together, in which their counts of sinks are summed."""
    joined = dict(sources[0])
    if "sinks_left_out" in joined:
        joined["sinks_left_out"] = np.sum([source["sinks_left_out"] for source in sources], axis=0).tolist()
    return joined


def identity(dialogue: Dialogue) -> dict[str, Any]:
    """The labels and identity of a dialogue as columns of a table; labels do not overwrite the identity."""
    return {**dialogue.labels, **{name: getattr(dialogue, name) for name in IDENTITY_COLUMNS}}


def _joined_tables(parts: Sequence[Activations]) -> pd.DataFrame:
    tables = [part.table for part in parts]
    if parts[0].source.get("reduce") != "tokens":
        # From rows, so that columns which a part lacks or leaves empty get the type that they have in a single capture.
        return pd.DataFrame([row for table in tables for row in table.to_dict("records")])
    # Every dialogue has a token, so the number in the last row says how many dialogues there are.
    starts = np.cumsum([0, *(table["dialogue"].iloc[-1] + 1 for table in tables[:-1])])
    counted = [table.assign(dialogue=table["dialogue"] + start) for table, start in zip(tables, starts, strict=True)]
    return pd.concat(counted, ignore_index=True)
