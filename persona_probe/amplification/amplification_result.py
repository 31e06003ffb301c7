"""How far a direction was amplified, layer by layer, with its nulls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.amplification.verdict import Finding, Row, finding, sentence
from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult
from persona_probe.statistics.max_statistic import smallest_p

if TYPE_CHECKING:
    import plotly.graph_objects as go


COLUMNS = (
    "direction",
    "layer",
    "model",
    "shift",
    "shift_sd",
    "low_sd",
    "high_sd",
    "d_z",
    "variance_explained",
    "variance_explained_random",
    "variance_explained_dialogue",
    "variance_explained_dialogue_random",
    "random_sd",
    "isotropic_sd",
    "shuffled_sd",
    "other_traits_sd",
    "specificity",
    "specificity_low",
    "specificity_high",
    "p_corrected",
    "detectable_sd",
    "n",
    "n_questions",
    "n_runs",
)
_SHOWN = (
    "shift_sd",
    "low_sd",
    "high_sd",
    "random_sd",
    "isotropic_sd",
    "specificity",
    "specificity_low",
    "p_corrected",
)


@dataclass(frozen=True)
class Amplification(TableResult):
    """Amplification along directions, with its nulls.

    Attributes:
        table: one row a ``direction``, ``layer`` and ``model`` (``after``, and ``control`` where there is one), with

            * ``shift`` (residual-stream units), ``shift_sd`` with its 95 % interval ``low_sd`` to ``high_sd`` (SD of
              the reference's dialogues along that direction), ``d_z`` (in SD of the dialogues' own changes);
            * ``variance_explained``: the share of the squared norm of the mean change that the direction carries, and
              of single dialogues' changes (``..._dialogue``, the mean); ``..._random``: 97.5 % of random directions
              carry less;
            * ``random_sd``, ``isotropic_sd``, ``shuffled_sd``: 97.5 % quantile of the absolute shift along random
              directions with the reference's covariance, along as many drawn evenly from the sphere, and along those
              from shuffled labels; ``other_traits_sd``: the largest along other traits' directions;
            * ``specificity`` = ``|after - control| / max(|control|, random)``, with its 95 % interval, on rows of
              ``after`` (NaN without a control);
            * ``p_corrected``: of no change, corrected for all directions and layers of that fine-tune;
            * ``detectable_sd``: the smallest shift that the sample would have shown with 80 % power in one test,
              uncorrected: ``p_corrected`` needs more;
            * ``n`` dialogues, ``n_questions``, and ``n_runs`` of fine-tuning (`Captures.over_seeds`).
        changes: per fine-tune, ``(dialogue, direction, layer)`` changes of the projection in SD.
        questions: ``(dialogue,)`` which question each row of ``changes`` answers; None: each its own.
        n_permutations: sign flips behind ``p_corrected``.
    """

    table: pd.DataFrame
    changes: Mapping[str, Float[np.ndarray, "dialogue direction layer"]] = field(repr=False)
    questions: np.ndarray | None = field(repr=False)
    n_permutations: int

    @property
    def directions(self) -> list[str]:
        """The directions' names, in order."""
        return [str(name) for name in self.table["direction"].unique()]

    @property
    def layers(self) -> list[int]:
        """The layer numbers, in order."""
        return [int(layer) for layer in self.table["layer"].unique()]

    @property
    def flagged(self) -> pd.DataFrame:
        """Rows of ``after`` that moved, but no more than their nulls: directions that anything might have moved.

        Those that other traits share (`Finding.SHARED`) are not among them: they moved more than their nulls.
        """
        keep = [found is Finding.NULLS for found in self._findings()]
        return self._after()[keep].reset_index(drop=True)

    def finding(self, layer: int, direction: str | None = None) -> Finding:
        """What the numbers at a layer come to; see `persona_probe.amplification.verdict.Finding`.

        Raises:
            PersonaProbeError: as `verdict`.
        """
        after, control = self.rows(layer, direction)
        return finding(after, control, self._least_p(after))

    def verdict(self, layer: int, direction: str | None = None) -> str:
        """The same in a plain line, with the numbers.

        Args:
            layer: which layer; chosen on other topics (`choose_layer`), not on these numbers.
            direction: which direction; may be left out where there is one.

        Raises:
            PersonaProbeError: if the layer or direction was not measured, or one must be named.
        """
        after, control = self.rows(layer, direction)
        return sentence(after, control, self._least_p(after))

    def rows(self, layer: int, direction: str | None = None) -> tuple[Row, Row | None]:
        """The rows of ``after`` and ``control`` (None without one).

        Raises:
            PersonaProbeError: as `verdict`.
        """
        name = self.name(direction)
        if layer not in self.layers:
            raise PersonaProbeError(f"layer {layer} was not measured; measured: {', '.join(map(str, self.layers))}")
        here = self.table[(self.table["direction"] == name) & (self.table["layer"] == layer)]
        found: dict[str, Any] = {str(row["model"]): row for row in here.to_dict("records")}
        return found["after"], found.get("control")

    def name(self, direction: str | None) -> str:
        """The direction meant; None means the only one.

        Raises:
            PersonaProbeError: if there are several, or none of that name.
        """
        if direction is None and len(self.directions) > 1:
            raise PersonaProbeError(f"there are {len(self.directions)} directions; name one: {self._listed()}")
        if direction is not None and direction not in self.directions:
            raise PersonaProbeError(f"direction {direction!r} was not measured; measured: {self._listed()}")
        return self.directions[0] if direction is None else direction

    def _after(self) -> pd.DataFrame:
        return self.table[self.table["model"] == "after"]

    def _findings(self) -> list[Finding]:
        """What each row of ``after`` comes to, in the table's order."""
        after = self._after()
        return [self.finding(layer, name) for name, layer in zip(after["direction"], after["layer"], strict=True)]

    def _listed(self) -> str:
        return ", ".join(map(repr, self.directions))

    def _least_p(self, row: Row) -> float:
        return smallest_p(int(row["n_questions"]), self.n_permutations)

    def __repr__(self) -> str:
        """What was measured, and how much of it is flagged."""
        first = self.table.iloc[0]
        count = len(self.directions) * len(self.layers)
        control = "" if "control" in self.changes else ", no control"
        return (
            f"Amplification({len(self.directions)} directions x {len(self.layers)} layers, {first['n']} dialogues of "
            f"{first['n_questions']} questions{control}; {len(self.flagged)} of {count} flagged)"
        )

    def shown(self) -> pd.DataFrame:
        """The rows of ``after``, each with its finding."""
        findings = [found.value for found in self._findings()]
        return self._after()[["direction", "layer", *_SHOWN]].assign(finding=findings)

    def plot(self, direction: str | None = None, layer: int | None = None) -> go.Figure:
        """The shift by layer beside all nulls that were measured.

        Args:
            direction: which direction; default the first.
            layer: to be marked as the chosen one.

        Raises:
            PersonaProbeError: if the direction was not measured.
        """
        from persona_probe.figures.amplification import amplification

        name = self.name(self.directions[0] if direction is None else direction)
        rows = self.table[self.table["direction"] == name]
        return amplification(rows.assign(chosen=rows["layer"] == layer))

    def headline(self) -> str:
        """The largest shift along the first direction beside its nulls, and how much was measured.

        The largest of several layers is no finding: choose a layer (`choose_layer`) and ask for its `verdict`.
        """
        name = self.directions[0]
        own = self._after()[self._after()["direction"] == name]
        if own["shift_sd"].isna().all():
            return repr(self)
        layer = int(own["layer"].to_numpy()[np.nanargmax(own["shift_sd"].abs().to_numpy())])
        after, control = self.rows(layer, name)
        count = len(self.directions) * len(self.layers)
        several = f" (largest of {len(self.layers)})" if len(self.layers) > 1 else ""
        return (
            f"{name!r}: after at layer {layer}{several}: {beside_nulls(after, control)}, "
            f"n = {after['n']} dialogues of {after['n_questions']} questions; of {count} ({len(self.directions)} "
            f"direction{'s' * (len(self.directions) != 1)} x {len(self.layers)} layer{'s' * (len(self.layers) != 1)}), "
            f"{len(self.flagged)} moved, but no more than {'its' if len(self.flagged) == 1 else 'their'} nulls"
        )


def choose_layer(development: Amplification, direction: str | None = None) -> int:
    """The layer to report, from an amplification measured on development topics.

    It is the one with the largest specificity; without a control, with the largest shift beside random directions'.
    A layer chosen on the numbers that are reported makes them look better than they are, so report it on other topics.

    Args:
        development: measured on development topics.
        direction: which direction; may be left out where there is one.

    Raises:
        PersonaProbeError: if the direction must be named, or no layer can be compared with its nulls.
    """
    table = development.table
    rows = table[(table["direction"] == development.name(direction)) & (table["model"] == "after")]
    ratio = rows["specificity"]
    if "control" not in development.changes:
        ratio = rows["shift_sd"].abs() / rows["random_sd"].where(rows["random_sd"] > 0)
    if ratio.isna().all():
        raise PersonaProbeError(
            "choose_layer: no layer moved, neither along the direction nor along random ones; are before and after the "
            "same model?"
        )
    return int(rows["layer"].to_numpy()[np.nanargmax(ratio.to_numpy())])


def beside_nulls(after: Row, control: Row | None) -> str:
    """Such as ``+2.10 SD [1.80, 2.40] (control +0.30; 97.5 % of random directions below 0.50)``.

    Args:
        after: the row of the narrow fine-tune.
        control: that of the control; None if there is none.
    """
    ends = "no interval" if math.isnan(after["low_sd"]) else f"{after['low_sd']:.2f}, {after['high_sd']:.2f}"
    nulls = ["no control" if control is None else f"control {control['shift_sd']:+.2f}"]
    if not math.isnan(after["random_sd"]):
        nulls.append(f"97.5 % of random directions below {after['random_sd']:.2f}")
    return f"{after['shift_sd']:+.2f} SD [{ends}] ({'; '.join(nulls)})"
