"""A fresh process, so that memory of other measurements does not count: ``python -m benchmarks.child NAME SETTING``."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.setting import Setting


def in_child(task: Callable[..., dict[str, Any]], setting: Setting, *arguments: Any) -> dict[str, Any]:
    """The result of ``task(setting, *arguments)`` in a new process, which must fit into JSON."""
    name = f"{task.__module__}:{task.__name__}"
    given = json.dumps([dataclasses.asdict(setting), *arguments])
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", name, given], cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    setting, *arguments = json.loads(sys.argv[2])
    print(json.dumps(getattr(importlib.import_module(module), function)(Setting(**setting), *arguments)))


if __name__ == "__main__":
    main()
