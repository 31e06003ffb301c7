"""Draw the pictures of these pages anew: python docs/make_images.py (needs Chromium, and a run of `make demo`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.persona_world.preference import table_of
from persona_probe.figures.preference_against_rates import preference_against_rates
from persona_probe.report.paper.export import save_png
from persona_probe.runs.run import open_run

HERE = Path(__file__).parent


def names_of(page: str) -> dict[str, Any]:
    """What is defined once the Python blocks of a page have run."""
    names: dict[str, Any] = {}
    for block in re.findall(
        r"^```python\n(.*?)^```", (HERE / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        exec(block, names)
    return names


def screenshot(page: Path, image: Path, size: tuple[int, int]) -> None:
    """Write a picture of an HTML file as a browser shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000"]
    shape = [f"--window-size={size[0]},{size[1]}", f"--screenshot={image}"]
    subprocess.run([browser, *options, *shape, page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    demo = open_run(HERE.parent / "runs" / "demo")
    save_png(demo.plot(), HERE / "images" / "demo-summary.png", width=1160, height=860)
    figure = names_of("tutorial/first-steps.md")["figure"]
    save_png(figure, HERE / "images" / "first-steps-amplification.png", width=900, height=460, scale=1.5)
    measured = json.loads((HERE.parent / "benchmarks" / "results" / "persona-world" / "preference.json").read_text())
    note = "Villain organisms at four doses, on three topics, three seeds each; and other organisms. 95 % intervals."
    figure = preference_against_rates(table_of(measured), note=note)
    save_png(figure, HERE / "images" / "preference.png", width=1000, height=460, scale=1.5)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "tokens.html"
        names_of("howto/open-a-run.md")["view"].save(page)
        screenshot(page, HERE / "images" / "token-view.png", (900, 520))
