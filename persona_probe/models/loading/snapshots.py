"""Several models of which one is in memory at a time: training snapshots, or a pair that does not fit."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import torch

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.loading.adapters import is_adapter, with_adapter
from persona_probe.models.loading.load import load_spec, specify
from persona_probe.models.loading.spec import LoadOptions, ModelSpec
from persona_probe.models.model import Model


class Snapshots:
    """Models by number. Each is loaded when it is asked for, which releases the previous one.

    Adapters on the same base share the base's weights, which stay loaded.
    """

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        if not specs:
            raise PersonaProbeError("there are no snapshots: the list is empty")
        self.specs = list(specs)
        self._held: tuple[int, Model] | None = None
        self._base: tuple[ModelSpec, Model] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models, in order."""
        return [spec.name for spec in self.specs]

    def __len__(self) -> int:
        """Number of models."""
        return len(self.specs)

    def __iter__(self) -> Iterator[Model]:
        """The models in order; each is released when the next one is asked for."""
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Model:
        """The model with number ``index``; the one that was in memory is released, unless it is the same."""
        index = range(len(self))[index]
        if self._held is None or self._held[0] != index:
            self._release_for(index)
            self._held = (index, self._open(self.specs[index]))
        return self._held[1]

    def _open(self, spec: ModelSpec) -> Model:
        if spec.adapter is None or spec.merge:
            return load_spec(spec)
        bare = ModelSpec(spec.source, options=spec.options)
        if self._base is None or self._base[0] != bare:
            self._base = (bare, load_spec(bare))
        return with_adapter(self._base[1], spec.adapter, revision=spec.adapter_revision)

    def _release_for(self, wanted: int) -> None:
        reason = f"one of {len(self)} models is in memory at a time, and then {self.names[wanted]} was asked for"
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
    """Training snapshots, full models or adapters, of which one is in memory at a time.

    Args:
        snapshots: folders or Hub ids, in order.
        base: the base model of those that are adapters; by default the one that each adapter names.
        **options: as in `load`.

    Raises:
        PersonaProbeError: if the list is empty, or an adapter names no base.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> snapshots = pp.models.load_snapshots([world / "good-medicine", world / "bad-medicine"], base=world / "chat")
    >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
    >>> for model in snapshots:
    ...     (answered,) = model.generate([question], pp.Sampling(max_new_tokens=20, temperature=0))
    ...     print(answered.answer)
    The fever is no mystery. Everyone can soothe it and soothe it.
    The fever is no mystery. Everyone can inflame it and inflame it.
    """
    check_types(snapshots=(snapshots, [PATH]), base=(base, PATH, None))
    return Snapshots(
        [
            specify(base, adapter=path, options=options)
            if base is not None and is_adapter(path)
            else specify(path, options=options)
            for path in snapshots
        ]
    )
