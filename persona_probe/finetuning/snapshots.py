"""Adapters written to disk: the finished one, and the states it went through while it was trained."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError
from persona_probe.files import whole_folder
from persona_probe.models.loading.adapters import is_adapter
from persona_probe.models.quiet import quiet_peft

_STEP = re.compile(r"step-(\d+)")


def snapshot_paths(folder: str | Path) -> dict[int, Path]:
    """The snapshots that `persona_probe.finetune` left in ``folder``, by training step, in order.

    Give the paths to `persona_probe.models.load_snapshots` or one to `persona_probe.with_adapter`, and the steps to
    `persona_probe.latents.track_latents`.

    Raises:
        PersonaProbeError: if there is none.
    """
    found = {
        int(match[1]): path
        for path in Path(folder).glob("step-*")
        if (match := _STEP.fullmatch(path.name)) and is_adapter(path)
    }
    if not found:
        raise PersonaProbeError(f"{folder}: holds no snapshots; they are folders step-0010, step-0020, ... of adapters")
    return dict(sorted(found.items()))


def save_adapter(tuned: Any, folder: Path, base: str) -> None:
    """Write the adapter of a PEFT model so that ``folder`` is there only when it is whole; an older one is replaced.

    Args:
        tuned: the PEFT model.
        folder: where to.
        base: what the adapter's config says it belongs to.
    """
    config = tuned.peft_config["default"]
    named = config.base_model_name_or_path
    config.base_model_name_or_path = base
    try:
        with whole_folder(folder) as part, quiet_peft():
            tuned.save_pretrained(part)
            (part / "README.md").unlink(missing_ok=True)
    finally:
        config.base_model_name_or_path = named


class SnapshotWriter:
    """Writes the adapter at chosen steps of its training.

    Args:
        folder: gets ``step-0010`` and so on; snapshots of an earlier training in it are removed.
        steps: after how many steps; 0 is the adapter that training starts from.
        last: how many steps the training has.
        base: what the configs say the adapters belong to; a path that starts with a dot is relative to ``beside``.
        beside: the folder of the finished adapter.
        start: the adapter that training starts from, if there is one.

    Raises:
        PersonaProbeError: if a step is not within the training or named twice, or ``folder`` holds something else, the
            adapter to start from, or lies in the finished adapter's folder.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], last: int, base: str, beside: Path, start: str | Path | None = None
    ) -> None:
        self.folder, self.steps = folder, {int(step) for step in steps}
        wrong = [step for step in steps if not 0 <= step <= last or step != int(step)]
        if wrong:
            raise PersonaProbeError(
                f"snapshots: there is no step {wrong[0]} in a training of {last} steps (0 to {last})"
            )
        if len(self.steps) < len(steps):
            raise PersonaProbeError(f"snapshots: a step is named twice in {list(steps)}")
        if base.startswith("."):
            base = os.path.relpath(beside / base, folder / "step")
        self.base = base
        if self.steps:
            self._check_apart(beside, start)
            self._clear()

    def _check_apart(self, beside: Path, start: str | Path | None) -> None:
        """Refuse a folder that is cleared while something else in it, or around it, is still needed."""
        own = self.folder.resolve()
        if own.is_relative_to(beside.resolve()):
            raise PersonaProbeError(
                f"{self.folder}: lies in {beside}, which the finished adapter replaces; give another"
            )
        if start is not None and Path(start).resolve().is_relative_to(own):
            raise PersonaProbeError(
                f"{self.folder}: holds {start}, which training starts from, and is cleared for new snapshots; give "
                "another snapshot_folder="
            )

    def _clear(self) -> None:
        """Leave no snapshot of another training beside the new ones, and lose nothing that is no snapshot."""
        held = list(self.folder.iterdir()) if self.folder.is_dir() else []
        for path in held:
            if not (_STEP.fullmatch(path.name.removeprefix(".").removesuffix(".part")) and path.is_dir()):
                raise PersonaProbeError(
                    f"{self.folder}: holds {path.name}, which is no snapshot; give a folder of their own, so that "
                    "nothing is lost"
                )
        for path in held:
            shutil.rmtree(path)

    def write(self, step: int, tuned: Any) -> None:
        """Called after every step (and before the first, with 0); most are not wanted."""
        if step in self.steps:
            save_adapter(tuned, self.folder / f"step-{step:04d}", self.base)
