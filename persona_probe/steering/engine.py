"""Applying interventions while a model runs: which rows and tokens each acts on is decided on the host."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.batch import Forward, Hit, Overflow, SteeredBatch, copies_of, is_of, tokens_inside
from persona_probe.steering.gating import GateLayer
from persona_probe.steering.interventions.change import StackedChange
from persona_probe.steering.interventions.gate import Gate
from persona_probe.steering.interventions.intervention import Intervention

_PLACED = 512
"""The most masks and row numbers that are stored on the device."""
_NOTHING = -1
"""The setting of a row that is not steered; arrays that are indexed by settings end with an entry for it."""


@dataclass(frozen=True)
class _Group:
    """Changes of the same family at one layer, and the settings that they belong to.

    Attributes:
        change: all changes, stacked.
        number: for each setting, the number of its change (0 if it has none).
        takes_part: for each setting, whether it is in the group.
        several: whether there is more than one change, so that each row needs the number of its own.
        key: the same for groups of the same settings, which act on the same tokens.
    """

    change: StackedChange
    number: Int[np.ndarray, "... setting"]
    takes_part: Bool[np.ndarray, "... setting"]
    several: bool
    key: Hashable


class Engine:
    """Applies settings (one for all dialogues, or one per dialogue) to the stream of a model; `write` is the hook.

    Nothing here waits for a GPU: scopes are known on the host, and values that a gate or an overflow depends on stay on
    the device.
    """

    # Stored tensors must not be inference tensors, since a later forward pass may need gradients.
    @torch.inference_mode(False)
    def __init__(self, model: Model, settings: Sequence[Intervention | None], *, each: bool) -> None:
        self._model, self._each = model, each
        active = {id(setting): setting for setting in settings if setting is not None and setting.strength != 0}
        self._settings = list(active.values())
        numbers = {key: number for number, key in enumerate(active)}
        self._of_dialogue = np.array([numbers.get(id(setting), _NOTHING) for setting in settings], dtype=np.int64)
        parts: defaultdict[int, list[int]] = defaultdict(list)
        for number, setting in enumerate(self._settings):
            for layer in setting.layers_in(model):
                parts[layer].append(number)
        self._groups = {layer: self._grouped(layer, there) for layer, there in parts.items()}
        gates = [setting if isinstance(setting, Gate) else None for setting in self._settings]
        self._gates = {
            layer: GateLayer(model, [gate if gate and gate.layer == layer else None for gate in gates])
            for layer in {gate.layer for gate in gates if gate}
        }
        self._first_gate = min(self._gates, default=None)
        self._scopes = {setting.scope for setting in settings if setting is not None}
        self._overflow = Overflow(model, sorted(self._groups))
        self._here = threading.local()
        # Settings of strength 0 change nothing, but whether the model runs is watched for them too.
        self._idle_layers = [] if active else sorted({i for one in settings if one for i in one.layers_in(model)})
        self._seen = 0
        self._asked = self._ran = False
        self._reached: set[int] = set()
        self._touched: set[int] = set()
        self._opened = torch.zeros(len(self._settings) + 1, dtype=torch.int64)
        self._on_device: dict[Hashable, Tensor] = {}

    @property
    def layers(self) -> list[int]:
        """The layers that need a hook, since something is changed or read there."""
        return sorted({*self._groups, *self._gates, *self._overflow.layers}) or self._idle_layers

    def _grouped(self, layer: int, there: Sequence[int]) -> list[_Group]:
        changes = {number: self._settings[number].at(layer) for number in there}
        families: defaultdict[Hashable, list[int]] = defaultdict(list)
        for number, change in changes.items():
            families[change.family].append(number)
        groups = []
        for members in families.values():
            place = np.zeros(len(self._settings) + 1, dtype=np.int64)
            takes_part = np.zeros(len(place), dtype=bool)
            place[members], takes_part[members] = np.arange(len(members)), True
            parts = [changes[member] for member in members]
            groups.append(_Group(parts[0].stacked(parts), place, takes_part, len(members) > 1, tuple(members)))
        return groups

    def write(self, layer: int, offset: int, hidden: Tensor) -> Tensor:
        """The changed output of a block; see `persona_probe.models.stream.residual_stream.Writer`."""
        self._asked = True
        self._reached.add(layer)
        if not self._settings:
            return hidden
        now = self._forward(offset, hidden)
        if layer in self._gates:
            self._read_gates(layer, hidden, now)
        steered = hidden
        for group in self._groups.get(layer, ()):
            hit = self._hit(now, group, hidden.device)
            if hit is not None:
                steered = _moved(steered, group.change, hit, self._where(now, hit, hidden.device))
        self._ran = True
        return self._overflow.watched(layer, steered) if layer in self._overflow.layers else steered

    def _forward(self, offset: int, hidden: Tensor) -> Forward:
        """The state of this forward pass: the same object for all of its layers."""
        boundary = self._model.boundary
        size, length, _ = hidden.shape
        now: Forward | None = getattr(self._here, "now", None)
        if now is None or now.offset != offset or now.length != length or not is_of(now.batch, boundary, size):
            batch = now.batch if now is not None and is_of(now.batch, boundary, size) else self._batch(boundary, size)
            inside = tokens_inside(batch, offset, length)
            hits = batch.hits.setdefault(inside.tobytes(), {}) if length == 1 else {}
            self._here.now = now = Forward(batch, offset, length, inside, hits)
        return now

    def _batch(self, boundary: Boundary | None, size: int) -> SteeredBatch:
        settings = self._rows(boundary, size)
        rows: defaultdict[Scope, Bool[np.ndarray, "... row"]] = defaultdict(lambda: np.zeros(size, dtype=bool))
        for number in np.unique(settings[settings != _NOTHING]):
            rows[self._settings[number].scope] |= settings == number
        copies = 1 if boundary is None else copies_of(len(boundary.begins), size)
        scopes = [(scope, there, np.flatnonzero(there[::copies])) for scope, there in rows.items()]
        return SteeredBatch(boundary, size, settings, scopes)

    def _rows(self, boundary: Boundary | None, batch: int) -> Int[np.ndarray, "... row"]:
        """The setting of each row of the batch."""
        if boundary is None and (self._each or not all(scope.everywhere for scope in self._scopes)):
            what = f"scope={', '.join(sorted(repr(str(scope)) for scope in self._scopes))}"
            raise PersonaProbeError(
                f"steering with {what}{' and one intervention per dialogue' * self._each} needs to know where the "
                "prompt ends, which a bare forward pass does not say: use model.generate, model.hf.generate or "
                "pp.capture, or scope='all' and one intervention for all"
            )
        if boundary is None or not self._each:
            return np.repeat(self._of_dialogue, batch)
        held = len(boundary.begins)
        rows = np.arange(held) if boundary.rows is None else np.asarray(boundary.rows)
        count = len(self._of_dialogue)
        if boundary.rows is None and held != count:
            raise self._miscounted(f"a batch of {held} prompts is being read")
        if boundary.total is not None and boundary.total != count:
            raise self._miscounted(f"{boundary.total} dialogues are being read")
        if rows.max() >= count:
            raise self._miscounted(f"dialogue {rows.max()} (counted from 0) is being read")
        self._seen = max(self._seen, int(rows.max()) + 1)
        return np.repeat(self._of_dialogue[rows], copies_of(held, batch))

    def _hit(self, now: Forward, group: _Group, device: torch.device) -> Hit | None:
        """Where ``group`` acts in this forward pass, or None if nowhere; computed once for groups with the same key."""
        key = (group.key, device)
        if key not in now.hits:
            settings = now.batch.settings
            inside = now.inside & group.takes_part[settings][:, None]
            columns = np.flatnonzero(inside.any(axis=0))
            if len(columns):
                self._touched.update(np.unique(settings[inside.any(axis=1)]).tolist())
                first, last = int(columns[0]), int(columns[-1]) + 1
                part = inside[:, first:last]
                mask = None if part.all() else self._placed(part, device)
                setting = self._placed(group.number[settings], device) if group.several else None
                now.hits[key] = Hit(first, last, mask, setting)
            else:
                now.hits[key] = None
        return now.hits[key]

    def _where(self, now: Forward, hit: Hit, device: torch.device) -> Bool[Tensor, "row column"] | None:
        """The tokens of ``hit`` at which gates are open (None: all tokens), which are counted for each setting."""
        if now.open is None:
            return hit.mask
        fires = now.open[:, hit.first : hit.last].to(device)
        mask = fires if hit.mask is None else hit.mask & fires
        settings = self._placed(now.batch.settings, device)
        self._opened = self._opened.to(device).index_put((settings,), mask.sum(dim=1), accumulate=True)
        return mask

    def _read_gates(self, layer: int, hidden: Tensor, now: Forward) -> None:
        """Decide which gates are open, for all gates whose probe reads this layer."""
        boundary = now.batch.boundary
        setting = self._placed(now.batch.settings, hidden.device) if self._each else None
        real = None
        if boundary is not None and now.offset < boundary.begins.max():
            position = np.arange(now.offset, now.offset + now.length)
            begins = np.repeat(boundary.begins, copies_of(len(boundary.begins), now.batch.size))
            real = self._placed(position[None, :] >= begins[:, None], hidden.device)
        fires = self._gates[layer].fires(hidden, now.offset, setting, real, boundary)
        if layer == self._first_gate or now.open is None:  # else it is from an earlier forward pass of the same size
            now.open = fires
        else:
            now.open = now.open.to(fires.device) & fires

    def _placed(self, values: np.ndarray, device: torch.device) -> Tensor:
        """``values`` on a device, copied without waiting, and stored, since the same ones recur at every token."""
        key = (values.tobytes(), values.shape, values.dtype, device)
        if key not in self._on_device:
            if len(self._on_device) >= _PLACED:
                self._on_device.clear()
            with torch.inference_mode(False):
                tensor = torch.from_numpy(np.ascontiguousarray(values))
                pinned = tensor.pin_memory() if device.type == "cuda" else tensor
                self._on_device[key] = pinned.to(device, non_blocking=True)
        return self._on_device[key]

    def after_generate(self) -> None:
        """Record that the steered model has run, and raise if its stream overflowed.

        Raises:
            PersonaProbeError: as `check_finite`.
        """
        self._asked = True
        self.check_finite()

    def check_finite(self) -> None:
        """Raise if the steered stream overflowed; called after each ``generate`` and when the context closes.

        Raises:
            PersonaProbeError: naming the first layer at which the steered stream was not finite.
        """
        self._overflow.check()

    def check_count(self) -> None:
        """Raise if fewer dialogues were steered than there are interventions.

        Raises:
            PersonaProbeError: if some dialogues were steered, but too few.
        """
        if self._each and 0 < self._seen < len(self._of_dialogue):
            raise self._miscounted(f"only {self._seen} dialogues were read")

    def warn_of_what_was_not_touched(self) -> None:
        """Warn if the steered model did not run, or an intervention touched no token."""
        if not self._asked:
            self._warn(
                f"no forward pass of {self._model.name} reached layer {self.layers[0]}, the first that is steered, so "
                "that nothing was steered; if another model was run inside the context, steer that one"
            )
        elif self._ran:
            reasons = [self._reason(number, setting) for number, setting in enumerate(self._settings)]
            idle = [reason for reason in reasons if reason is not None]
            if idle:
                self._warn(f"{len(idle)} of {len(reasons)} interventions touched no token: {idle[0]}")

    def _reason(self, number: int, setting: Intervention) -> str | None:
        """Why an intervention touched no token; None if it touched some."""
        layers = set(setting.layers_in(self._model))
        if not layers & self._reached:
            return f"no forward pass of {self._model.name} reached {_named(layers)}, where {setting!r} acts"
        if number not in self._touched:
            return f"the scope {str(setting.scope)!r} of {setting!r} contained none of the tokens that were read"
        if isinstance(setting, Gate) and not self._opened[number] > 0:
            return f"no token scored above the threshold of {setting!r}, so that the gate was never open"
        return None

    def _warn(self, message: str) -> None:
        warnings.warn(f"steering: {message}", PersonaProbeWarning, stacklevel=5)

    def _miscounted(self, read: str) -> PersonaProbeError:
        return PersonaProbeError(
            f"steering was given {len(self._of_dialogue)} interventions, but {read}; give one for each dialogue (for "
            "each answer, if each is answered n times), or None for those that are not to be steered"
        )


def _named(layers: Collection[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, sorted(layers)))}"


def _moved(
    hidden: Tensor, change: StackedChange, hit: Hit, mask: Bool[Tensor, "row column"] | None
) -> Float[Tensor, "row position d_model"]:
    """``hidden`` with the change where it hits and ``mask`` is true; all other tokens stay bit-identical."""
    columns = slice(hit.first, hit.last)
    whole = hit.first == 0 and hit.last == hidden.shape[1]
    part = hidden if whole else hidden[:, columns]
    moved: Tensor = change.apply(part, hit.setting)
    if mask is not None:
        moved = torch.where(mask[..., None], moved, part)
    if whole:
        return moved
    return torch.cat([hidden[:, : hit.first], moved, hidden[:, hit.last :]], dim=1)
