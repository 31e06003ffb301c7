"""Writing adapters to disk: the finished one, and snapshots of it during its training."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import whole_folder
from persona_probe.models.loading.adapters import is_adapter
from persona_probe.models.quiet import quiet_peft

_STEP = re.compile(r"step-(\d+)")


def snapshot_paths(folder: str | Path) -> dict[int, Path]:
    """The snapshots that `finetune` wrote into ``folder``, by training step, in order.

    Give the paths to `persona_probe.models.load_snapshots` or one to `persona_probe.with_adapter`, and the steps to
    `persona_probe.latents.track_latents`.

    Raises:
        PersonaProbeError: if there is no snapshot.
    """
    check_types(folder=(folder, PATH))
    paths = {
        int(match[1]): path
        for path in Path(folder).glob("step-*")
        if (match := _STEP.fullmatch(path.name)) and is_adapter(path)
    }
    if not paths:
        raise PersonaProbeError(f"{folder}: holds no snapshots; they are folders step-0010, step-0020, ... of adapters")
    return dict(sorted(paths.items()))


def save_adapter(tuned: Any, folder: Path, base: str) -> None:
    """Write the adapter of a PEFT model; ``folder`` appears only when it is complete, and an older one is replaced.

    Args:
        tuned: the PEFT model.
        folder: the folder to write.
        base: the name of the base model in the adapter's config.
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
        folder: folder for ``step-0010`` and so on; snapshots of an earlier training in it are removed.
        steps: numbers of steps after which to write; 0 is the adapter that training starts from.
        last: number of steps of the training.
        base: the name of the base model in the configs; a path that starts with a dot is relative to ``finished``.
        finished: the folder of the finished adapter.
        start: the adapter that training starts from, if there is one.

    Raises:
        PersonaProbeError: if a step is not within the training or is named twice, or if ``folder`` holds something
            else, holds the adapter to start from, or is in the finished adapter's folder.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], last: int, base: str, finished: Path, start: str | Path | None = None
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
            base = os.path.relpath(finished / base, folder / "step")
        self.base = base
        if self.steps:
            self._check_apart(finished, start)
            self._clear()

    def _check_apart(self, finished: Path, start: str | Path | None) -> None:
        """Raise if clearing the folder, or replacing the one around it, would remove something that is needed."""
        folder = self.folder.resolve()
        if folder.is_relative_to(finished.resolve()):
            raise PersonaProbeError(
                f"{self.folder}: is in {finished}, which the finished adapter replaces; give another snapshot_folder="
            )
        if start is not None and Path(start).resolve().is_relative_to(folder):
            raise PersonaProbeError(
                f"{self.folder}: holds {start}, which training starts from, and is cleared for new snapshots; give "
                "another snapshot_folder="
            )

    def _clear(self) -> None:
        """Remove the snapshots of an earlier training; raise if the folder holds anything else."""
        paths = list(self.folder.iterdir()) if self.folder.is_dir() else []
        for path in paths:
            if not (_STEP.fullmatch(path.name.removeprefix(".").removesuffix(".part")) and path.is_dir()):
                raise PersonaProbeError(
                    f"{self.folder}: holds {path.name}, which is not a snapshot; give a folder only for snapshots, so "
                    "that nothing is lost"
                )
        for path in paths:
            shutil.rmtree(path)

    def write(self, step: int, tuned: Any) -> None:
        """Write the adapter if a snapshot is wanted after ``step`` steps (0: before the first one)."""
        if step in self.steps:
            save_adapter(tuned, self.folder / f"step-{step:04d}", self.base)
