"""Execute the notebooks here, in order, and keep them with their outputs: `make notebooks`, or `execute.py 2 5`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
LONGEST = 600
"""Seconds that one cell may take before it counts as hung; a whole notebook takes at most five minutes on two cores."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def execute(path: Path) -> float:
    """Run one notebook from the project's root and write it back with its outputs; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LONGEST,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE.parent)}},
        record_timing=False,
        # A kernel warns that it talks over loopback without encryption, which is how every local one does.
        extra_arguments=["--log-level=ERROR"],
        coalesce_streams=True,
    )
    started = time.monotonic()
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(notebook, path)
    return time.monotonic() - started


def main() -> int:
    """Execute what the arguments name by number, or all."""
    wanted = sys.argv[1:]
    paths = [path for path in sorted(HERE.glob("*.ipynb")) if not wanted or path.name.split("-")[0] in wanted]
    if not paths:
        print(f"no notebook called {', '.join(wanted)} in {HERE}", file=sys.stderr)
        return 2
    # A picture beside each interactive figure, for places that show only pictures (a code host, these docs).
    pictures = any(map(shutil.which, BROWSERS)) or os.environ.get("BROWSER_PATH")
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype+png" if pictures else "plotly_mimetype"
    if not pictures:
        print("no Chrome or Chromium: the notebooks are kept without pictures of their figures", file=sys.stderr)
    # Beside other work on the same cores, threads that spin while they wait make small models far slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Bars without ipywidgets are plain text; saying so is no news to a reader of the outputs.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    failed = 0
    for path in paths:
        try:
            seconds = execute(path)
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: FAILED\n{error}", file=sys.stderr)
        else:
            size = path.stat().st_size / 1e6
            print(f"{path.name}: {seconds:.0f} s, {size:.1f} MB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
