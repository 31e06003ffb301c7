"""Activations of the same texts in the models that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.errors import PersonaProbeError, check_types

READING = ("span", "reduce", "sink_ratio", "template_hash")
"""How texts were read: this must be the same in the sources of activations that are compared."""
OWN_FORMAT = "own_format"
"""In a source: the model of a pair read the dialogues under its own tokenizer and chat template, which differ."""


def check_reading(name: str, source: Mapping[str, Any], expected: Mapping[str, Any], whose: str = "before") -> None:
    """Raise if activations were read in different ways; what only one of the sources states is not compared.

    Raises:
        PersonaProbeError: naming what differs.
    """
    own_format = source.get(OWN_FORMAT) or expected.get(OWN_FORMAT)
    for key in READING:
        if key == "template_hash" and own_format:
            continue
        if key in source and key in expected and source[key] != expected[key]:
            raise PersonaProbeError(
                f"{key} is {source[key]!r} in {name} and {expected[key]!r} in {whose}, so their "
                "projections cannot be compared; capture both in the same way"
            )


@dataclass(frozen=True)
class Captures:
    """Activations of the same texts in the model before, after, and after the control fine-tune.

    Attributes:
        before: activations ``(dialogue, layer, d_model)`` of the model before narrow training.
        after: the same for the model after it.
        control: the same for a matched benign fine-tune; None if there is none, which leaves open whether any training
            would do the same.
    """

    before: Activations
    after: Activations
    control: Activations | None = None

    def __post_init__(self) -> None:
        """Raise if the captures are of different texts or layers, or were read in different ways."""
        check_types(
            before=(self.before, Activations),
            after=(self.after, Activations),
            control=(self.control, Activations, None),
        )
        if len(self.before) == 0:
            raise PersonaProbeError("the captures hold no dialogue; give at least one, better dozens")
        for name, other in self.tuned.items():
            check_reading(name, other.source, self.before.source)
            alike = ("id", "question") if other.source.get(OWN_FORMAT) else ("id", "question", "n_tokens")
            shared = [key for key in alike if key in other.table and key in self.before.table]
            if len(other) != len(self.before) or any(
                list(other.table[key]) != list(self.before.table[key]) for key in shared
            ):
                raise PersonaProbeError(f"{name} read other dialogues than before; give both the same dialogues")
            if other.layers != self.before.layers or other.values.shape != self.before.values.shape:
                raise PersonaProbeError(
                    f"{name} has layers {other.layers} of width {other.values.shape[2]}, before "
                    f"{self.before.layers} of width {self.before.values.shape[2]}; capture both with the same layers="
                )

    @property
    def tuned(self) -> dict[str, Activations]:
        """The activations of the fine-tuned models: ``after`` and, if there is one, ``control``."""
        return {"after": self.after} | ({} if self.control is None else {"control": self.control})

    @property
    def questions(self) -> np.ndarray | None:
        """``(dialogue,)`` which question each dialogue answers, by its ``id`` if no dialogue names a question.

        None if there are no ids either.

        Raises:
            PersonaProbeError: if only some dialogues name one.
        """
        asked, ids = self._column("question"), self.before.table.get("id")
        return np.asarray(ids.to_numpy()) if asked is None and ids is not None and ids.notna().all() else asked

    @property
    def seeds(self) -> np.ndarray | None:
        """``(dialogue,)`` the fine-tuning (or sampling) seed; None if no dialogue has one.

        Raises:
            PersonaProbeError: if only some dialogues have one.
        """
        return self._column("seed")

    @property
    def runs(self) -> int:
        """Number of fine-tuning runs: one, unless several were joined by `over_seeds`."""
        return len(self.after.source.get("runs", [None]))

    def _column(self, name: str) -> np.ndarray | None:
        if name not in self.before.table or self.before.table[name].isna().all():
            return None
        column = self.before.table[name]
        if column.isna().any():
            first = self.before.table["id"].iloc[int(column.isna().to_numpy().argmax())]
            raise PersonaProbeError(
                f"{int(column.isna().sum())} of {len(column)} dialogues have no {name} (the first is "
                f"{first!r}), and intervals are over questions and seeds; give every dialogue a {name}, or none"
            )
        return np.asarray(column.to_numpy())

    @classmethod
    def over_seeds(cls, parts: Sequence[Captures]) -> Captures:
        """Several fine-tuning runs together: part ``i`` becomes seed ``i``, so that intervals are over runs too.

        Args:
            parts: one part per run, all with the same model before; either all or none with a control.

        Raises:
            PersonaProbeError: if there is no part, only some have a control, or the parts read different layers or in
                different ways.
        """
        check_types(parts=(parts, [Captures]))
        if not parts:
            raise PersonaProbeError("over_seeds: there are no captures: the list is empty")
        if len({part.control is None for part in parts}) > 1 or len({part.before.layers for part in parts}) > 1:
            raise PersonaProbeError(
                "over_seeds: the parts differ in layers, or only some have a control; give every part one, or none"
            )
        for number, part in enumerate(parts):
            check_reading(f"part {number}", part.before.source, parts[0].before.source, "part 0")

        def joined(runs: Sequence[Activations]) -> Activations:
            tables = [run.table.assign(seed=seed) for seed, run in enumerate(runs)]
            return replace(
                runs[0],
                values=np.concatenate([run.values for run in runs]),
                table=pd.concat(tables, ignore_index=True),
                source={**runs[0].source, "runs": [run.source.get("model") for run in runs]},
            )

        controls = [part.control for part in parts if part.control is not None]
        return cls(
            joined([part.before for part in parts]),
            joined([part.after for part in parts]),
            joined(controls) if controls else None,
        )
