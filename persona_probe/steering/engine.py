"""Interventions made while a model runs: which rows and tokens each acts on, decided on the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary
from persona_probe.steering.gating import GateState
from persona_probe.steering.interventions.change import StackedChange
from persona_probe.steering.interventions.gate import Gate
from persona_probe.steering.interventions.intervention import Intervention

_PLACED = 512
"""Masks and row numbers that are kept on the device."""


@dataclass(frozen=True)
class _Group:
    """Changes of one family at one layer, and which settings they are of.

    Attributes:
        change: all of them.
        number: of each setting, its place in ``change`` (0 where it has none).
        takes_part: of each setting, whether it is in the group.
        gates: of each setting, the gate that it stands behind, or -1.
    """

    change: StackedChange
    number: Int[np.ndarray, "... setting"]
    takes_part: Bool[np.ndarray, "... setting"]
    gates: tuple[int, ...]


@dataclass
class _Forward:
    """What is known of the forward that is running: whose rows they are, and which tokens are acted on."""

    boundary: Boundary | None
    place: tuple[int, ...]
    settings: Int[np.ndarray, "... row"]
    inside: Bool[np.ndarray, "row position"]
    hits: dict[Hashable, _Hit] = field(default_factory=dict)


@dataclass(frozen=True)
class _Hit:
    """The tokens that one group acts on: all columns from ``first`` to before ``last``, but where ``mask`` says no."""

    first: int
    last: int
    mask: Tensor | None
    setting: Tensor | None


class Engine:
    """Settings (one for all, or one a dialogue) applied to the stream of a model; the writer that hooks call.

    Nothing here waits for a GPU: scopes are known on the host, and where a gate or an overflow depends on values, these
    stay on the device.
    """

    def __init__(self, model: Model, settings: Sequence[Intervention | None], *, each: bool) -> None:
        self._model, self._settings, self._each = model, list(settings), each
        self._gates = [setting for setting in settings if isinstance(setting, Gate)]
        places = {id(gate): number for number, gate in enumerate(self._gates)}
        parts: defaultdict[int, list[tuple[int, Intervention]]] = defaultdict(list)
        for number, setting in enumerate(self._settings):
            if setting is None or setting.strength == 0:  # so that the stream stays as it is, bit for bit
                continue
            for layer in setting.layers_in(model):
                parts[layer].append((number, setting))
        self._groups = {layer: self._grouped(layer, there, places) for layer, there in parts.items()}
        self._scopes = sorted({str(setting.scope) for setting in settings if setting is not None})
        self._everywhere = all(setting is None or setting.scope.everywhere for setting in settings)
        self._watched = model.n_layers - 1 if torch.finfo(model.plain.dtype).bits < 32 else None
        self._broken: dict[int, Tensor] = {}
        self._state = GateState(model, self._gates)
        self._now: _Forward | None = None
        self._seen = 0
        self._on_device: dict[Hashable, Tensor] = {}

    @property
    def layers(self) -> list[int]:
        """Where a hook is needed: where something is changed or read."""
        read = [] if self._watched is None else [self._watched]
        return sorted({*self._groups, *(gate.layer for gate in self._gates), *read})

    def _grouped(self, layer: int, there: Sequence[tuple[int, Intervention]], places: dict[int, int]) -> list[_Group]:
        families: defaultdict[Hashable, list[tuple[int, Intervention]]] = defaultdict(list)
        changes = {number: setting.at(layer) for number, setting in there}
        for number, setting in there:
            families[changes[number].family].append((number, setting))
        groups = []
        for members in families.values():
            numbers = np.zeros(len(self._settings), dtype=np.int64)
            part = np.zeros(len(self._settings), dtype=bool)
            gates = [-1] * len(self._settings)
            for place, (number, setting) in enumerate(members):
                numbers[number], part[number], gates[number] = place, True, places.get(id(setting), -1)
            own = [changes[number] for number, _ in members]
            groups.append(_Group(own[0].stacked(own), numbers, part, tuple(gates)))
        return groups

    def write(self, layer: int, offset: int, hidden: Tensor) -> Tensor:
        """What becomes of a block's output; see `persona_probe.models.stream.residual_stream.Writer`."""
        now = self._forward(offset, hidden)
        if self._gates:
            self._state.read(layer, offset, hidden)
        steered = hidden
        for group in self._groups.get(layer, ()):
            hit = self._hit(now, group, hidden.device)
            if hit is not None:
                steered = self._moved(steered, group, hit, now)
        if self._watched is not None and (steered is not hidden or layer == self._watched):
            finite = torch.isfinite(steered).all()
            known = self._broken.get(layer)
            self._broken[layer] = ~finite if known is None else known | ~finite.to(known.device)
        return steered

    def _moved(self, hidden: Tensor, group: _Group, hit: _Hit, now: _Forward) -> Tensor:
        whole = hit.first == 0 and hit.last == hidden.shape[1]
        part = hidden if whole else hidden[:, hit.first : hit.last]
        moved: Tensor = group.change.apply(part, hit.setting)
        keep = hit.mask
        fires = self._state.fires(group.gates, now.settings if self._each else None, slice(hit.first, hit.last))
        if fires is not None:
            keep = fires.to(moved.device) if keep is None else keep & fires.to(moved.device)
        if keep is not None:
            moved = torch.where(keep[..., None], moved, part)
        if whole:
            return moved
        return torch.cat([hidden[:, : hit.first], moved, hidden[:, hit.last :]], dim=1)

    def _forward(self, offset: int, hidden: Tensor) -> _Forward:
        """What is known of this forward; the same object for all of its layers."""
        boundary = self._model.boundary
        batch, length = hidden.shape[:2]
        place = (offset, batch, length)
        if self._now is None or self._now.boundary is not boundary or self._now.place != place:
            settings = self._rows(boundary, batch)
            self._now = _Forward(boundary, place, settings, self._inside(boundary, settings, offset, length))
        return self._now

    def _rows(self, boundary: Boundary | None, batch: int) -> Int[np.ndarray, "... row"]:
        """Which setting each row of the batch has."""
        if boundary is None and (self._each or not self._everywhere):
            what = f"scope={', '.join(map(repr, self._scopes))}" + (" and one intervention a dialogue" * self._each)
            raise PersonaProbeError(
                f"steering with {what} needs to know where the prompt ends, and a bare forward does not say: use "
                "model.generate, model.hf.generate or pp.capture, or scope='all' and one intervention for all"
            )
        if not self._each or boundary is None:
            return np.zeros(batch, dtype=np.int64)
        held = len(boundary.begins)
        rows = np.arange(held) if boundary.rows is None else np.asarray(boundary.rows)
        count = len(self._settings)
        if boundary.rows is None and held != count:
            raise self._miscounted(f"a batch of {held} prompts is being read")
        if rows.max() >= count:
            raise self._miscounted(f"dialogue {rows.max()} (counted from 0) is being read")
        self._seen = max(self._seen, int(rows.max()) + 1)
        return np.repeat(rows, _copies(held, batch))

    def _inside(
        self, boundary: Boundary | None, settings: Int[np.ndarray, "... row"], offset: int, length: int
    ) -> Bool[np.ndarray, "row position"]:
        """The tokens in the scope of their row's setting."""
        if boundary is None:
            return np.ones((len(settings), length), dtype=bool)
        copies = _copies(len(boundary.begins), len(settings))
        inside = np.zeros((len(settings), length), dtype=bool)
        own = [self._settings[number] for number in settings]
        for scope in {setting.scope for setting in own if setting is not None}:
            rows = np.array([setting is not None and setting.scope == scope for setting in own])
            inside[rows] = np.repeat(boundary.mask(scope, offset, length), copies, axis=0)[rows]
        return inside

    def _hit(self, now: _Forward, group: _Group, device: torch.device) -> _Hit | None:
        """Where ``group`` acts in this forward, or None if nowhere; worked out once for all layers that are alike."""
        shared = (group.takes_part.tobytes(), group.number.tobytes(), str(device))
        if shared not in now.hits:
            inside = now.inside & group.takes_part[now.settings][:, None]
            columns = np.flatnonzero(inside.any(axis=0))
            first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
            part = inside[:, first:last]
            mask = None if part.all() else self._placed(part, device)
            setting = self._placed(group.number[now.settings], device) if group.takes_part.sum() > 1 else None
            now.hits[shared] = _Hit(first, last, mask, setting)
        hit = now.hits[shared]
        return hit if hit.last > hit.first else None

    def _placed(self, values: np.ndarray, device: torch.device) -> Tensor:
        """``values`` on a device, without making the host wait for it; the same ones come up token after token."""
        key = (values.tobytes(), values.shape, str(device))
        if key not in self._on_device:
            if len(self._on_device) >= _PLACED:
                self._on_device.clear()
            tensor = torch.from_numpy(np.ascontiguousarray(values))
            pinned = tensor.pin_memory() if device.type == "cuda" else tensor
            self._on_device[key] = pinned.to(device, non_blocking=True)
        return self._on_device[key]

    def check_finite(self) -> None:
        """Refuse what came of an overflow; asked after each run of ``generate`` and when the context closes.

        Raises:
            PersonaProbeError: naming the first layer at which the steered stream was not finite.
        """
        broken, self._broken = self._broken, {}
        for layer, flag in sorted(broken.items()):
            if bool(flag):
                dtype = str(self._model.plain.dtype).removeprefix("torch.")
                largest = torch.finfo(self._model.plain.dtype).max
                raise PersonaProbeError(
                    f"steering made the residual stream of {self._model.name} overflow at layer {layer}: {dtype} holds "
                    f"numbers up to {largest:.3g}; steer more weakly, or load the model with dtype='bfloat16' or "
                    "'float32'"
                )

    def check_count(self) -> None:
        """Refuse to have steered fewer dialogues than there are interventions.

        Raises:
            PersonaProbeError: if there were some, but too few.
        """
        if self._each and 0 < self._seen < len(self._settings):
            raise self._miscounted(f"only {self._seen} dialogues were read")

    def _miscounted(self, read: str) -> PersonaProbeError:
        return PersonaProbeError(
            f"steering was given {len(self._settings)} interventions, and {read}; give one for each dialogue (and "
            "answer, where each is answered n times), None where nothing is to be done"
        )


def _copies(held: int, batch: int) -> int:
    """How often each row stands in the batch: beams and several sequences a prompt are copies side by side."""
    if batch % held:
        raise PersonaProbeError(
            f"steering: a batch of {batch} rows is being read where {held} prompts were given; this way of generating "
            "cannot be followed"
        )
    return batch // held
