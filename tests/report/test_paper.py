from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.report.figure_list import figures
from persona_probe.report.paper import export
from persona_probe.report.paper.export import PaperFigure, save_png, to_paper, to_paper_all
from persona_probe.report.paper.folder import write_paper_folder
from persona_probe.report.paper.provenance import table_hash
from persona_probe.result import Result
from persona_probe.runs.record import read_run
from tests.browser import chromium
from tests.report.conftest import _manifest, _results, _write_run, make_tables

needs_browser = pytest.mark.skipif(chromium() is None, reason="no Chrome or Chromium on this machine")
HOSTILE = "</text><script>alert(1)</script>=cmd|' /C calc'!A0"


@dataclass(frozen=True)
class Measured(Result):
    """A result as others make them."""

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        return self.table.copy()

    def plot(self) -> go.Figure:
        return figures.em_rates(self.table)

    def headline(self) -> str:
        return "measured"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_tables(np.random.default_rng(0))
    tables = {name: made[name] for name in ("em_rates", "direction_cosines", "steering", "answers")}
    tables["direction_cosines"] = tables["direction_cosines"].replace("contrast of context", HOSTILE)
    tables["answers"] = tables["answers"][["question"]].assign(answer=HOSTILE)
    return _write_run(tmp_path_factory.mktemp("paper") / "run", tables, _results(), _manifest())


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if chromium() is None:
        pytest.skip("no Chrome or Chromium on this machine")
    pytest.importorskip("kaleido")
    return write_paper_folder(run, tmp_path_factory.mktemp("exported"), formats=["pdf", "svg"]).parent


def test_every_figure_of_a_run_is_exported_with_where_it_is_from(run: Path, exported: Path) -> None:
    record = read_run(run)
    for name in ("summary", "em_rates", "cosines", "steering"):
        for file in (f"{name}-{width}.{form}" for width in ("column", "page") for form in ("pdf", "svg")):
            about = json.loads((exported / "figures" / f"{file}.json").read_text())
            assert about["file"] == file
            assert about["run"]["models"]["before"]["hash"] == "9f2c" * 16
            assert about["run"]["config_sha256"]
            assert about["persona_probe"]
            assert about["caption"] == figures[name].caption(record)
    about = json.loads((exported / "figures" / "cosines-page.pdf.json").read_text())
    assert about["tables"] == {
        "direction_cosines": {"rows": 16, "sha256": table_hash(record.tables["direction_cosines"])}
    }


@pytest.mark.skipif(shutil.which("pdfinfo") is None, reason="no pdfinfo (poppler-utils) on this machine")
def test_pdfs_have_the_journals_width_and_hold_their_fonts(exported: Path) -> None:
    for name in ("em_rates", "cosines", "steering"):
        for width, points in (("column", 252.3), ("page", 518.7)):
            pdf = exported / "figures" / f"{name}-{width}.pdf"
            info = subprocess.run(["pdfinfo", pdf], capture_output=True, text=True, check=True).stdout
            size = re.search(r"Page size:\s+([\d.]+) x ([\d.]+)", info)
            assert size is not None
            assert float(size.group(1)) == pytest.approx(points, abs=1.0)
            assert float(size.group(2)) < 247 / 25.4 * 72
            assert re.search(r"Pages:\s+1\n", info)
            fonts = subprocess.run(["pdffonts", pdf], capture_output=True, text=True, check=True).stdout.splitlines()[
                2:
            ]
            assert fonts
            assert all(line.split()[-5:-2] == ["yes", "yes", "yes"] for line in fonts), fonts


def test_svgs_keep_text_as_text_and_hostile_text_harmless(exported: Path) -> None:
    svg = (exported / "figures" / "cosines-column.svg").read_text()
    assert "<text" in svg
    assert "layer (output of block, counted from 0)" in svg
    assert "<script" not in svg
    assert "font-family: Inter" in svg
    width = re.search(r'width="([\d.]+)"', svg)
    assert width is not None
    assert float(width.group(1)) == pytest.approx(89 / 25.4 * 96, abs=0.5)


def test_the_folder_lists_what_is_in_it(run: Path, exported: Path) -> None:
    index = (exported / "index.html").read_text()
    linked = re.findall(r'href="([^"]+)"', index)
    assert all((exported / link).is_file() for link in linked)
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert files == {*linked, "index.html"}
    assert "methods.txt" in linked
    assert "Betley" in (exported / "references.bib").read_text()
    again = read_run(run).tables["em_rates"]
    pd.testing.assert_frame_equal(pd.read_csv(exported / "tables" / "em_rates.csv"), again, check_dtype=False)


def test_text_that_a_spreadsheet_would_run_is_not_run(exported: Path) -> None:
    assert r"\begin{tabular}" in (exported / "tables" / "em_rates.tex").read_text()
    answers = pd.read_csv(exported / "tables" / "answers.csv")
    assert set(answers["answer"]) == {HOSTILE}  # it begins as no formula does
    assert "script" not in (exported / "index.html").read_text()


@needs_browser
@pytest.mark.slow
def test_a_result_is_exported_as_png_that_knows_its_size(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    table = make_tables(np.random.default_rng(0))["em_rates"]
    path = to_paper(Measured(table), tmp_path / "deep" / "rates.png", "column", dpi=600, height_mm=70, caption="Rates.")
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert width == pytest.approx(89 / 25.4 * 600, abs=3)
    assert height == pytest.approx(70 / 25.4 * 600, abs=3)
    assert struct.unpack(">I", content[content.index(b"pHYs") + 4 :][:4])[0] == round(600 / 0.0254)
    about = json.loads(path.with_name("rates.png.json").read_text())
    assert about["tables"]["Measured"]["sha256"] == table_hash(table)
    assert about["caption"] == "Rates."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"path": "figure.gif"}, r"'\.gif' is not a figure format; end it in \.pdf, \.svg, \.png"),
        ({"path": "figure"}, "no suffix"),
        ({"width": "colum"}, r"'colum' is not one of 'column' \(89 mm\), 'page' \(183 mm\)"),
        ({"width": 3.5}, "3.5 mm is not a size for a figure"),
        ({"height_mm": 5000}, "height_mm: 5000 mm is not a size"),
        ({"dpi": 10}, "dpi is 10"),
        ({"figure": "a string"}, "a str .*cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_a_browser_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object], said: str
) -> None:
    monkeypatch.setattr(export, "render", pytest.fail)
    given = {"figure": go.Figure(), "path": "figure.pdf", **asked}
    with pytest.raises(PersonaProbeError, match=said):
        to_paper_all([PaperFigure(**{**given, "path": tmp_path / str(given["path"])})])  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_without_kaleido_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(PersonaProbeError, match=r"pip install 'persona-probe\[export\]'"):
        to_paper(go.Figure(), tmp_path / "figure.pdf")
    assert not list(tmp_path.iterdir())


def test_without_a_browser_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaleido = pytest.importorskip("kaleido")
    errors = pytest.importorskip("choreographer.errors")

    class Missing:
        def __init__(self, **_: object) -> None:
            raise errors.ChromeNotFoundError("none")

    monkeypatch.setattr(kaleido, "Kaleido", Missing)
    with pytest.raises(PersonaProbeError, match=r"apt-get install chromium\), or set BROWSER_PATH"):
        to_paper(go.Figure(), tmp_path / "figure.pdf")


def test_what_is_taller_than_a_page_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "render", lambda jobs: [b"" for _ in jobs])
    with pytest.warns(PersonaProbeWarning, match="tall.svg is 300 mm tall, and a page of text 247 mm"):
        to_paper(go.Figure(), tmp_path / "tall.svg", height_mm=300)
    to_paper(go.Figure(), tmp_path / "low.svg", height_mm=200)


@pytest.mark.parametrize(("given", "said"), [({"formats": ["gif"]}, "'gif'"), ({"widths": []}, "none is given")])
def test_a_folder_of_unknown_formats_is_refused(
    run: Path, tmp_path: Path, given: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(PersonaProbeError, match=said):
        write_paper_folder(run, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_png_for_the_screen_needs_kaleido_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(PersonaProbeError, match=r"persona-probe\[export\]"):
        save_png(go.Figure(), tmp_path / "figure.png")


@needs_browser
@pytest.mark.slow
def test_a_figure_becomes_a_png(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    path = save_png(go.Figure(go.Scatter(x=[0, 1], y=[0, 1])), tmp_path / "figure.png", width=300, height=200, scale=1)
    assert path.read_bytes().startswith(b"\x89PNG")
