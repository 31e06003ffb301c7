"""Several models of which one is in memory at a time: a chain of training snapshots, a pair that does not fit."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.adapters import is_adapter, with_adapter
from persona_probe.models.loading.load import load_spec, specify
from persona_probe.models.loading.spec import LoadOptions, ModelSpec
from persona_probe.models.model import Model


class Snapshots:
    """Models by number, loaded when asked for; asking for one releases the one before.

    Adapters on one base share the base's weights, which stay loaded.
    """

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        if not specs:
            raise PersonaProbeError("there are no snapshots: the list is empty")
        self.specs = list(specs)
        self._held: tuple[int, Model] | None = None
        self._base: tuple[ModelSpec, Model] | None = None

    @property
    def names(self) -> list[str]:
        """What the models are called."""
        return [spec.name for spec in self.specs]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.specs)

    def __iter__(self) -> Iterator[Model]:
        """One after the other; each is released when the next is asked for."""
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Model:
        """Number ``index``; the model that was held until now is released unless it is the same."""
        index = range(len(self))[index]
        if self._held is None or self._held[0] != index:
            self._let_go(index)
            self._held = (index, self._open(self.specs[index]))
        return self._held[1]

    def _open(self, spec: ModelSpec) -> Model:
        if spec.adapter is None or spec.merge:
            return load_spec(spec)
        bare = ModelSpec(spec.source, options=spec.options)
        if self._base is None or self._base[0] != bare:
            self._base = (bare, load_spec(bare))
        return with_adapter(self._base[1], spec.adapter, revision=spec.adapter_revision)

    def _let_go(self, wanted: int) -> None:
        reason = f"one of {len(self)} models is held at a time, and then {self.names[wanted]} was asked for"
        if self._held is not None:
            self._held[1].release(reason)
            self._held = None
        spec = self.specs[wanted]
        if self._base is not None and (spec.adapter is None or spec.merge or spec.source != self._base[0].source):
            self._base[1].release(reason)
            self._base = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_snapshots(
    snapshots: Sequence[str | Path], *, base: str | Path | None = None, **options: Unpack[LoadOptions]
) -> Snapshots:
    """A chain of training snapshots, full models or adapters, of which one is in memory at a time.

    Args:
        snapshots: folders or Hub ids, in order.
        base: the model that adapters among them go on; default the one each names.
        **options: as in `load`.

    Raises:
        PersonaProbeError: if the list is empty, or an adapter names no base.
    """
    return Snapshots(
        [
            specify(base, adapter=path, options=options)
            if base is not None and is_adapter(path)
            else specify(path, options=options)
            for path in snapshots
        ]
    )
