"""A checkout that is not installed, as on a machine without network."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "persona-probe"


def stand_in(folder: Path) -> None:
    """Let this process and its children read the package's version, as an editable installation does.

    Args:
        folder: an empty folder that exists as long as they run.
    """
    try:
        importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        information = folder / f"{NAME.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        text = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n"
        (information / "METADATA").write_text(text, encoding="utf-8")
        sys.path.append(str(folder))
        paths = [str(ROOT), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
