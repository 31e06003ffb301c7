"""The JSON file of a run: what is done is in it as soon as it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from persona_probe.files import plain, write_text

Status = Literal["running", "done", "failed", "skipped", "killed"]


@dataclass(frozen=True)
class Record:
    """A file that several processes write one after the other, never at once."""

    path: Path

    def read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text(encoding="utf-8"))) if self.path.exists() else {"parts": {}}

    def about(self, **facts: Any) -> None:
        result = self.read()
        self._write({**result, "about": {**result.get("about", {}), **facts}})

    def part(self, name: str, status: Status, **facts: Any) -> None:
        """Put one part into the file, in place of what was there of it."""
        result = self.read()
        self._write({**result, "parts": {**result["parts"], name: {"status": status, **facts}}})

    def status(self, name: str) -> str | None:
        return self.read()["parts"].get(name, {}).get("status")

    def _write(self, result: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(plain(result), indent=1) + "\n")
