"""The folder a study writes: nothing stands in it half-written under its final name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.json_values import plain


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
        part.write_text(json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(final)
        return final
