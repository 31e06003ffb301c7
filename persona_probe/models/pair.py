"""A model before and after fine-tuning, on one copy of the weights where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.adapters import is_adapter, with_adapter
from persona_probe.models.loading.load import load_spec, specify
from persona_probe.models.loading.memory import both_fit, footprint
from persona_probe.models.loading.snapshots import Snapshots
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model


class ModelPair:
    """A model ``before`` and ``after`` narrow training.

    If ``one_at_a_time``, the two do not fit into memory together: reading ``before`` releases ``after``, and the other
    way round. That ``after`` was made from ``before`` (`Model.ancestors`) is then known once ``before`` has been read.
    """

    def __init__(self, before: Model, after: Model) -> None:
        _check_sizes((before.n_layers, before.d_model), (after.n_layers, after.d_model), before.name, after.name)
        after.descends_from(before)
        self._models: tuple[Model, Model] | Snapshots = (before, after)
        self._ancestors: set[str] = set()

    @classmethod
    def one_at_a_time_of(cls, snapshots: Snapshots) -> ModelPair:
        """A pair of two full models of which one is held at a time."""
        first, second = (footprint(spec) for spec in snapshots.specs)
        _check_sizes((first.n_layers, first.d_model), (second.n_layers, second.d_model), *snapshots.names)
        pair = cls.__new__(cls)
        pair._models, pair._ancestors = snapshots, set()
        return pair

    @property
    def one_at_a_time(self) -> bool:
        """Whether only one of the two is held in memory."""
        return isinstance(self._models, Snapshots)

    @property
    def before(self) -> Model:
        """The model before narrow training."""
        before = self._models[0]
        if self.one_at_a_time and not self._ancestors:
            self._ancestors = {before.fingerprint(), *before.ancestors}
        return before

    @property
    def after(self) -> Model:
        """The model after narrow training."""
        after = self._models[1]
        after.ancestors |= self._ancestors
        return after

    def __repr__(self) -> str:
        """Both names."""
        names = self._models.names if isinstance(self._models, Snapshots) else [model.name for model in self._models]
        return f"ModelPair(before={names[0]!r}, after={names[1]!r}{', one at a time' if self.one_at_a_time else ''})"


def load_pair(
    before: str | Path | Model,
    after: str | Path | Model,
    *,
    keep_both: bool | None = None,
    **options: Unpack[LoadOptions],
) -> ModelPair:
    """Load the models of a pair; if ``after`` is a LoRA adapter, both stand on one copy of the weights.

    Args:
        before: path, Hub id, or a loaded model.
        after: a LoRA adapter for ``before``, a full model, or a loaded model.
        keep_both: two full models: hold both in memory, or one at a time; default both if they fit.
        **options: as in `load`, for both; ``revision`` is that of ``before``'s repository.

    Raises:
        PersonaProbeError: as `load`, and if the two differ in layers or width.
    """
    if isinstance(after, Model) or is_adapter(after):
        first = before if isinstance(before, Model) else load_spec(specify(before, options=options))
        return ModelPair(first, after if isinstance(after, Model) else with_adapter(first, after))
    own = options.copy()
    own["revision"] = None
    if isinstance(before, Model):
        # Loaded as before was, or the difference in precision would be taken for one between the models.
        as_before = LoadOptions() if before.spec is None else before.spec.options.copy()
        own = as_before | own
        if own.get("device_map") is None and own.get("device") is None:
            own["device"] = before.device
        return ModelPair(before, load_spec(specify(after, options=own)))
    specs = (specify(before, options=options), specify(after, options=own))
    if keep_both if keep_both is not None else both_fit(*specs):
        return ModelPair(load_spec(specs[0]), load_spec(specs[1]))
    return ModelPair.one_at_a_time_of(Snapshots(specs))


def _check_sizes(first: tuple[int, int], second: tuple[int, int], before: str, after: str) -> None:
    if first != second:
        raise PersonaProbeError(
            f"{before} has {first[0]} layers of width {first[1]}, {after} has {second[0]} of {second[1]}: "
            "before and after must be the same architecture"
        )
