from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from persona_probe.figures import forest
from persona_probe.report.figure_list import figures
from persona_probe.runs.record import read_run


def test_every_figure_loads_and_says_what_it_shows() -> None:
    for name, kind in figures.items():
        assert kind.about.endswith("."), name
        assert getattr(figures, name) is kind
        assert (kind.caption is not None) == bool(kind.tables), name
        taken = inspect.signature(kind.function).parameters
        assert set(kind.options) <= set(taken), name
    assert set(dir(figures)) >= set(figures)
    assert len(repr(figures).splitlines()) == len(figures)
    with pytest.raises(AttributeError, match="there is no figure 'em_rate'; there are summary, em_rates"):
        figures.em_rate  # noqa: B018


def test_every_drawing_module_is_listed() -> None:
    """A figure that a new module draws is found under ``figures``."""
    helpers = {"__init__", "axes", "forest", "highlighting", "keys", "matrix", "realignment_rows", "required", "rows"}
    helpers |= {"template", "text"}
    folder = Path(forest.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - helpers == {kind.module for kind in figures.values()}


def test_figures_of_a_run_are_drawn_with_captions(run_folder: Path) -> None:
    run = read_run(run_folder)
    for kind in figures.values():
        if not kind.tables or not set(kind.tables) <= set(run.tables):
            continue
        assert kind.draw(run).data, kind.name
        caption = kind.caption(run) if kind.caption else ""
        assert re.search(r"\bnulls?\b", caption, re.IGNORECASE) or kind.name == "summary", kind.name
        assert "n =" in caption, kind.name
        assert "interval" in caption, kind.name


def test_a_run_is_drawn_under_its_own_definition(run_folder: Path, write_run, tables, results, manifest) -> None:
    results["definition"] = "tan"
    run = read_run(write_run(run_folder.parent / "tan", tables, results, manifest))
    assert "tan" in str(figures.em_rates.draw(run).layout.title.text)
    assert "P(aligned < 50 | coherent ≥ 30)" in figures.em_rates.caption(run)
    with pytest.raises(ValueError, match="no study stores its table"):
        figures.dose_response.draw(run)


def test_listing_figures_needs_no_torch() -> None:
    code = "from persona_probe.report.figure_list import figures; repr(figures)"
    code = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
