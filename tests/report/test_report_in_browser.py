"""The pages in a real headless Chromium: drawn, searched, sorted, saved, copied, printed; nothing hostile runs."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from persona_probe.report.comparison.comparison_page import compare_runs
from persona_probe.report.run_page import render_report
from tests.browser import Page, chromium, open_page
from tests.report.conftest import _manifest, _results, _write_run, make_tables
from tests.report.test_comparison import write
from tests.report.test_run_page import HOSTILE, SECTIONS, hostile_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if chromium() is None:
        pytest.skip("no Chromium: install it (apt-get install chromium), or name it in BROWSER_PATH")
    tables, results, manifest = make_tables(np.random.default_rng(0)), _results(), _manifest()
    hostile_run(tables, results, manifest)
    tables["latents"] = pd.DataFrame(
        {
            "latent": [7, 30, 2],
            "before": [1.0, 2.0, 0.5],
            "after": [4.0, 1.0, 0.6],
            "change_sd": [3.0, -1.0, 0.1],
            "low_sd": [2.5, -1.2, -0.1],
            "high_sd": [3.5, -0.8, 0.3],
            "control_sd": [0.1, 0.0, 0.1],
            "specificity": [30.0, 10.0, 1.0],
            "finding": ["rose", "fell", HOSTILE],
        }
    )
    return _write_run(tmp_path_factory.mktemp("browser") / "run", tables, results, manifest)


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[Page]:
    with open_page(render_report(run)) as opened:
        opened.wait_for("document.querySelectorAll('.plot .main-svg').length > 0")
        # A click is aimed at where a button stands, so the page must not be gliding there.
        opened.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
        yield opened


def is_quiet(page: Page) -> bool:
    """Nothing was complained of or asked for, and no hostile string ran."""
    assert page.errors == []
    assert page.requests == []
    return page.evaluate("document.title") != "owned" and page.evaluate("window.owned === undefined")


def test_every_figure_is_drawn_and_nothing_hostile_runs(page: Page) -> None:
    drawn = set(
        page.evaluate(
            "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.main-svg')).map(p => p.id)"
        )
    )
    assert drawn == {f"plot-{name}" for name in (*SECTIONS, "latents", "latents-control")}
    assert page.evaluate("[...document.querySelectorAll('[role=img]')].every(p => p.ariaLabel.startsWith('Figure: '))")
    assert is_quiet(page)


def test_latents_are_searched_and_sorted(page: Page) -> None:
    first = "document.querySelector('.latents tbody:not([hidden]) th').textContent"
    shown = "document.querySelectorAll('.latents tbody:not([hidden])').length"
    page.evaluate(
        "(b => { b.value = 'fell'; b.dispatchEvent(new Event('input')); })(document.querySelector('.find input'))"
    )
    assert page.evaluate(shown) == 1
    assert page.evaluate("document.querySelector('.find output').textContent") == "1 of 3 shown"
    page.evaluate(
        "(b => { b.value = ''; b.dispatchEvent(new Event('input')); })(document.querySelector('.find input'))"
    )
    assert page.evaluate(shown) == 3
    page.click(".latents thead th:first-child button")
    assert page.evaluate(first) == "30"
    page.click(".latents thead th:first-child button")
    assert page.evaluate(first) == "2"
    assert page.evaluate("document.querySelector('.latents thead th').ariaSort") == "ascending"
    assert is_quiet(page)


def test_data_and_figures_are_saved(page: Page, run: Path, tmp_path: Path) -> None:
    page.send("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for button, file in (("[data-table=em_rates]", "em_rates.csv"), ("[data-figure=probe]", "probe.svg")):
        page.click(button)
        until = time.monotonic() + 15
        while not (tmp_path / file).is_file() and time.monotonic() < until:
            page.evaluate("1")
            time.sleep(0.05)
        assert (tmp_path / file).is_file(), file
    saved = pd.read_csv(tmp_path / "em_rates.csv", encoding="utf-8-sig")
    pd.testing.assert_frame_equal(saved, pd.read_csv(run / "tables" / "em_rates.csv"))
    assert (tmp_path / "probe.svg").read_text().startswith("<svg")
    assert is_quiet(page)


@pytest.mark.parametrize("name", ["bibtex", "methods-text"])
def test_text_is_copied(page: Page, name: str) -> None:
    page.send("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    page.send("Page.bringToFront")
    page.click(f"[data-copy={name}]")
    said = f"document.querySelector('[data-copy={name}]').parentElement.querySelector('output').textContent"
    page.wait_for(f"{said} !== ''")
    assert page.evaluate(said) == "Copied."
    text = page.evaluate(f"document.getElementById('{name}').textContent")
    assert page.evaluate("navigator.clipboard.readText()") == text
    assert is_quiet(page)


def test_everything_can_be_reached_by_keyboard(page: Page) -> None:
    page.evaluate("(document.activeElement.blur(), window.scrollTo(0, 0), true)")
    page.evaluate("document.querySelector('.skip').focus()")
    assert page.evaluate("document.querySelector('.skip').getBoundingClientRect().left >= 0")
    assert page.evaluate("document.querySelectorAll('header, nav, main').length") == 3
    assert (
        page.evaluate(
            "[...document.querySelectorAll('button, a[href], input, summary')].filter(e => e.tabIndex < 0).length"
        )
        == 0
    )
    assert page.evaluate("[...document.querySelectorAll('.scroll, .paste pre')].every(e => e.tabIndex === 0)")
    page.evaluate("document.querySelector('[data-table]').focus({focusVisible: true})")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_dark_readers_get_dark_figures(page: Page) -> None:
    paper = "getComputedStyle(document.querySelector('#plot-probe .main-svg')).backgroundColor"
    light = page.evaluate(paper)
    page.prefer("dark")
    page.wait_for(f"{paper} !== '{light}'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == page.evaluate(paper)
    page.prefer("light")
    page.wait_for(f"{paper} === '{light}'")
    assert is_quiet(page)


@pytest.mark.skipif(shutil.which("pdfinfo") is None, reason="no pdfinfo (poppler-utils) on this machine")
def test_it_prints_on_few_pages(page: Page, tmp_path: Path) -> None:
    printed = page.print(tmp_path / "report.pdf")
    info = subprocess.run(["pdfinfo", printed], capture_output=True, text=True, check=True).stdout
    pages = int(info.split("Pages:")[1].split()[0])
    assert 5 < pages < 20
    text = subprocess.run(["pdftotext", printed, "-"], capture_output=True, text=True, check=True).stdout
    assert "left out in print" in text
    assert "Amplification, with 95 % intervals." in text  # a short table is printed though it is folded on screen


def test_a_comparison_is_drawn_and_nothing_hostile_runs(tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("no Chromium: install it (apt-get install chromium), or name it in BROWSER_PATH")
    evil = "<img src=x onerror=owned=1>"
    other = write(tmp_path / evil, results={"title": HOSTILE, "judge": HOSTILE}, config={HOSTILE: HOSTILE})
    with open_page(compare_runs([write(tmp_path / "one"), other], tmp_path / "comparison.html")) as page:
        page.wait_for("document.querySelectorAll('.plot .main-svg').length >= 4")
        assert page.evaluate("document.querySelectorAll('.plot').length") == 4
        assert page.evaluate("document.querySelectorAll('[data-table]:not([hidden])').length") == 4
        assert is_quiet(page)
