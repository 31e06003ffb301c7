"""The result of measuring amplification: how far directions were amplified, layer by layer, with their nulls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.amplification.verdict import Finding, Least, Row, finding, sentence
from persona_probe.directions.replication import NO_LAYER
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.result import TableResult
from persona_probe.statistics.max_statistic import smallest_p
from persona_probe.statistics.replication import FAILS, RELIABILITY, UNCHECKED, reliability
from persona_probe.statistics.run_permutations import smallest_run_p

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
    "contrast_sd",
    "contrast_low_sd",
    "contrast_high_sd",
    "random_contrast_sd",
    "d_z",
    "d_z_low",
    "d_z_high",
    "variance_explained",
    "variance_explained_random",
    "variance_explained_dialogue",
    "variance_explained_dialogue_random",
    "random_sd",
    "random_dimensions",
    "isotropic_sd",
    "shuffled_sd",
    "other_traits_sd",
    "specificity",
    "specificity_low",
    "specificity_high",
    "p_corrected",
    "p_runs",
    "detectable_sd",
    "n",
    "n_questions",
    "n_runs",
    "replication",
    *RELIABILITY,
)
_SHOWN = (
    "shift_sd",
    "low_sd",
    "high_sd",
    "contrast_sd",
    "contrast_low_sd",
    "contrast_high_sd",
    "random_contrast_sd",
    "random_sd",
    "isotropic_sd",
    "specificity",
    "specificity_low",
    "p_runs",
    "n_runs",
    *RELIABILITY,
)


@dataclass(frozen=True)
class Amplification(TableResult):
    """Amplification along directions, with its nulls.

    Attributes:
        table: one row per ``direction``, ``layer`` and ``model`` (``after``, and ``control`` if there is one), with

            * ``shift`` (residual-stream units), ``shift_sd`` with its 95 % interval ``low_sd`` to ``high_sd`` (SD of
              the reference's dialogues along that direction; the interval contains the error of that SD), ``d_z`` with
              ``d_z_low`` and ``d_z_high`` (in SD over questions of the questions' own changes);
            * ``contrast_sd``: after's shift minus the control's, with ``contrast_low_sd`` to ``contrast_high_sd``, over
              questions and the runs of both, on rows of ``after`` (NaN without a control); ``random_contrast_sd``: the
              97.5 % quantile of the same in absolute value, along random directions with the reference's covariance;
            * ``variance_explained``: the share of the squared norm of the mean change that lies along the direction,
              and that of single dialogues' changes (``..._dialogue``, the mean); ``..._random``: the share below which
              97.5 % of random directions are;
            * ``random_sd``, ``isotropic_sd``, ``shuffled_sd``: the 97.5 % quantile of the absolute shift along random
              directions with the reference's covariance (which fills ``random_dimensions`` dimensions: if these are
              few, so are the directions), along as many drawn evenly from the sphere, and along directions from
              shuffled labels; ``other_traits_sd``: the largest shift along other traits' directions;
            * ``specificity`` = ``|after - control| / max(|control|, random)``, with its 95 % interval, where random is
              ``random_contrast_sd``; on rows of ``after``;
            * ``p_corrected``: the p value of no change in these runs, over questions, corrected for all directions and
              layers of that fine-tune; it is small for nearly every fine-tune;
            * ``p_runs``: the one-sided p value of after's runs against the control's, by permutation of runs, corrected
              for all directions and layers (`run_permutation_p`), on rows of ``after``;
            * ``detectable_sd``: the smallest true contrast (without a control: shift) whose interval would leave out
              zero with 80 % assurance in a design like this one;
            * ``n`` dialogues, ``n_questions``, and ``n_runs`` of fine-tuning (`Captures.over_seeds`);
            * ``replication``: whether the direction ``replicates`` at this layer, ``does not replicate`` (then it is
              not tested, both p are NaN, and the others are not corrected for it) or was ``not checked``; with its
              card's ``split_half_cosine`` and ``held_out_auroc`` from ``held_out_auroc_low`` to
              ``held_out_auroc_high``.
        changes: for each fine-tune, ``(dialogue, direction, layer)`` changes of the projection in SD.
        questions: ``(dialogue,)`` the question that each row of ``changes`` answers; None if all are different.
        n_permutations: the number of sign flips behind ``p_corrected``.
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
        """The rows of ``after`` that moved, but no more than their nulls.

        Rows that moved as much along other traits (`Finding.SHARED`) are not among them: they moved more than their
        nulls.
        """
        return self._after()[[found is Finding.NULLS for found in self._findings()]].reset_index(drop=True)

    def finding(self, layer: int, direction: str | None = None) -> Finding:
        """What the numbers at a layer show; see `persona_probe.amplification.verdict.Finding`.

        Raises:
            PersonaProbeError: as in `verdict`.
        """
        after, control = self.rows(layer, direction)
        return finding(after, control, self._least(after))

    def verdict(self, layer: int, direction: str | None = None) -> str:
        """What the numbers at a layer show, in a sentence with the numbers.

        Args:
            layer: the layer, which should be chosen on other topics (`choose_layer`), not on these numbers.
            direction: the name of the direction; may be left out if there is only one.

        Raises:
            PersonaProbeError: if the layer or direction was not measured, or one must be named.
        """
        after, control = self.rows(layer, direction)
        return sentence(after, control, self._least(after))

    def allowed_layers(self, direction: str | None = None) -> list[int]:
        """The layers at which a shift along the direction can show anything: all but those where it does not replicate.

        All layers of a direction whose replication was not checked.

        Raises:
            PersonaProbeError: if the direction was not measured, or must be named.
        """
        rows = self._after()[self._after()["direction"] == self.name(direction)]
        return [int(layer) for layer in rows.loc[rows["replication"] != FAILS, "layer"]]

    def no_layer(self, direction: str | None = None) -> str | None:
        """The verdict of a direction that replicates at no layer that was measured; None if there is one.

        Raises:
            PersonaProbeError: as in `allowed_layers`.
        """
        name = self.name(direction)
        if self.allowed_layers(name):
            return None
        rows = self._after()[self._after()["direction"] == name].reset_index(drop=True)
        score = rows["split_half_cosine"].fillna(rows["held_out_auroc"]).to_numpy()
        best = rows.iloc[0 if np.isnan(score).all() else int(np.nanargmax(score))].to_dict()
        of = f"of {len(rows)} the best is layer {best['layer']}" if len(rows) > 1 else f"layer {best['layer']}"
        return f"{NO_LAYER} ({of}: {reliability(best)}), so that no shift along it shows anything"

    def rows(self, layer: int, direction: str | None = None) -> tuple[Row, Row | None]:
        """The rows of ``after`` and ``control`` (None without one).

        Raises:
            PersonaProbeError: as in `verdict`.
        """
        check_types(layer=(layer, WHOLE))
        name = self.name(direction)
        if layer not in self.layers:
            raise PersonaProbeError(f"layer {layer} was not measured; measured: {', '.join(map(str, self.layers))}")
        rows = self.table[(self.table["direction"] == name) & (self.table["layer"] == layer)]
        by_model: dict[str, Any] = {str(row["model"]): row for row in rows.to_dict("records")}
        return by_model["after"], by_model.get("control")

    def name(self, direction: str | None) -> str:
        """The name of the direction that is meant; None means the only one.

        Raises:
            PersonaProbeError: if there are several, or none with that name.
        """
        if direction is None and len(self.directions) > 1:
            raise PersonaProbeError(f"there are {len(self.directions)} directions; name one: {self._listed()}")
        if direction is not None and direction not in self.directions:
            raise PersonaProbeError(f"direction {direction!r} was not measured; measured: {self._listed()}")
        return self.directions[0] if direction is None else direction

    def _after(self) -> pd.DataFrame:
        return self.table[self.table["model"] == "after"]

    def _allowed(self, name: str) -> pd.DataFrame:
        """The rows of ``after`` at the layers that may be chosen."""
        rows = self._after()
        return rows[(rows["direction"] == name) & rows["layer"].isin(self.allowed_layers(name))]

    def _findings(self) -> list[Finding]:
        """The finding of each row of ``after``, in the table's order."""
        after = self._after()
        return [self.finding(layer, name) for name, layer in zip(after["direction"], after["layer"], strict=True)]

    def _listed(self) -> str:
        return ", ".join(map(repr, self.directions))

    def _least(self, row: Row) -> Least:
        """The smallest p values that there can be with so many questions and runs."""
        runs = int(row["n_runs"])
        return Least(smallest_p(int(row["n_questions"]), self.n_permutations), smallest_run_p(runs, runs))

    def __repr__(self) -> str:
        """What was measured, and how many rows are flagged."""
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
        """A figure of the shift by layer, with all nulls that were measured.

        Args:
            direction: the name of the direction; default the first.
            layer: the layer that is marked as the chosen one.

        Raises:
            PersonaProbeError: if the direction was not measured.
        """
        from persona_probe.figures.amplification import amplification

        check_types(layer=(layer, WHOLE, None))
        name = self.name(self.directions[0] if direction is None else direction)
        rows = self.table[self.table["direction"] == name]
        return amplification(rows.assign(chosen=rows["layer"] == layer))

    def headline(self) -> str:
        """The shift along the first direction at one layer, with its nulls, and how much was measured.

        The layer is the one that `choose_layer` takes. On the same numbers that is not a finding: choose a layer on
        other topics and ask for its `verdict`.
        """
        name = self.directions[0]
        if (verdict := self.no_layer(name)) is not None:
            return f"{name!r}: {verdict}"
        rows = self._allowed(name)
        if rows["shift_sd"].isna().all():
            return repr(self)
        layer = _largest_excess(rows)
        after, control = self.rows(layer, name)
        count = len(self.directions) * len(self.layers)
        several = f" (which choose_layer takes of {len(rows)})" if len(rows) > 1 else ""
        trust = "replication not checked" if after["replication"] == UNCHECKED else reliability(after)
        return (
            f"{name!r}: after at layer {layer}{several}: {with_nulls(after, control)}; {trust}; "
            f"n = {after['n']} dialogues of {after['n_questions']} questions; of {count} ({len(self.directions)} "
            f"direction{'s' * (len(self.directions) != 1)} x {len(self.layers)} layer{'s' * (len(self.layers) != 1)}), "
            f"{len(self.flagged)} moved, but no more than {'its' if len(self.flagged) == 1 else 'their'} nulls"
        )


def choose_layer(development: Amplification, direction: str | None = None) -> int:
    """The layer to report, chosen on an amplification that was measured on development topics.

    Only layers at which the direction replicates are chosen among (`Direction.replication`), whatever the shifts; all
    of them, if that was not checked, which the verdict then says. Of these it is the layer at which after minus control
    (upwards or downwards) exceeds that along random directions most: the largest ``|contrast_sd| -
    random_contrast_sd``; without a control, the largest ``|shift_sd| - random_sd``. It is not the largest specificity:
    ratios of small numbers are large at layers where little happens. If a layer is chosen on the numbers that are
    reported, they look better than they are, so report it on other topics. Other topics do not protect against a layer
    at which *these runs* differ by chance: they are read by the same models. ``p_runs`` does, since it is corrected for
    all layers that were measured.

    Args:
        development: an amplification measured on development topics.
        direction: the name of the direction; may be left out if there is only one.

    Raises:
        PersonaProbeError: if the direction must be named, there is no layer at which it replicates (`Amplification.
            no_layer`), or no layer can be compared with its nulls.

    Examples:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import persona_probe as pp
        >>> def read(values):  # what capture gives: (dialogue, layer, d_model)
        ...     table = pd.DataFrame({"id": range(40), "question": [f"q{i}" for i in range(40)]})
        ...     return pp.Activations(values.astype(np.float32), table, layers=(0, 1))
        >>> before = np.random.default_rng(0).normal(size=(40, 2, 8))
        >>> moved = np.zeros((2, 8))
        >>> moved[1, 0] = 3.0  # at layer 1 only
        >>> captures = pp.Captures(read(before), read(before + moved))
        >>> evil = pp.Direction(np.eye(8, dtype=np.float32)[[0, 0]], layers=(0, 1))
        >>> development = pp.measure_amplification(evil, captures, read(before), n_random=50, n_permutations=50)
        >>> pp.amplification.choose_layer(development)
        1
    """
    check_types(development=(development, Amplification))
    name = development.name(direction)
    if (verdict := development.no_layer(name)) is not None:
        raise PersonaProbeError(f"choose_layer: {name!r}: {verdict}; give more questions or other poles")
    rows = development._allowed(name)
    if not rows[["shift_sd", "random_sd"]].fillna(0.0).any(axis=None):
        raise PersonaProbeError(
            "choose_layer: no layer moved, neither along the direction nor along random ones; are before and after the "
            "same model?"
        )
    return _largest_excess(rows)


def _largest_excess(rows: pd.DataFrame) -> int:
    """The layer of the row at which after, minus the control if there is one, exceeds random directions most.

    Args:
        rows: rows of ``after`` along one direction; at least one has a shift.
    """
    alone = rows["contrast_sd"].isna().all()
    measured, random = ("shift_sd", "random_sd") if alone else ("contrast_sd", "random_contrast_sd")
    excess = rows[measured].abs() - rows[random].fillna(0.0)
    return int(rows["layer"].to_numpy()[np.nanargmax(excess.to_numpy())])


def with_nulls(after: Row, control: Row | None) -> str:
    """A shift in words, as ``+2.10 SD [1.80, 2.40] (control +0.30; 97.5 % of random directions below 0.50)``.

    Args:
        after: the row of the narrow fine-tune.
        control: the row of the control, or None if there is none.
    """
    ends = "no interval" if math.isnan(after["low_sd"]) else f"{after['low_sd']:.2f}, {after['high_sd']:.2f}"
    nulls = ["no control" if control is None else f"control {control['shift_sd']:+.2f}"]
    if not math.isnan(after["random_sd"]):
        nulls.append(f"97.5 % of random directions below {after['random_sd']:.2f}")
    return f"{after['shift_sd']:+.2f} SD [{ends}] ({'; '.join(nulls)})"
