"""The folder a study writes: nothing stands in it half-written under its final name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd


class RunFolder:
    """Writes tables and JSON atomically."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        (self.path / "tables").mkdir(parents=True, exist_ok=True)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write ``tables/NAME.parquet`` and ``.csv``."""
        for suffix in ("parquet", "csv"):
            final = self.path / "tables" / f"{name}.{suffix}"
            part = final.with_suffix(f".{suffix}.part")
            if suffix == "parquet":
                table.to_parquet(part, index=False)
            else:
                table.to_csv(part, index=False)
            part.replace(final)

    def write_json(self, name: str, content: Any) -> Path:
        """Write ``NAME`` as JSON; NaN and infinities become null."""
        final = self.path / name
        part = final.with_name(final.name + ".part")
        part.write_text(json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(final)
        return final


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
