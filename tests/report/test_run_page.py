from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.report.page import FIGURE_CONFIG, embed_json
from persona_probe.report.run_page import render_report
from tests.report.conftest import _manifest, _results, _write_run, make_tables

SECTIONS = (
    "summary",
    "em-rates",
    "em-by-question",
    "answers-scatter",
    "personas",
    "directions",
    "amplification",
    "finders",
    "probe",
    "same-words",
    "steering",
    "realignment",
)
VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} \u202e"
)


class Page(HTMLParser):
    """Reads a page, and fails on any tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]

    @property
    def figures(self) -> dict[str, Any]:
        (data,) = [script for script in self.scripts if script.startswith('{"figures"')]
        return dict(json.loads(data)["figures"])


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def words(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that tests only read."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("report") / "run"
    return render_report(_write_run(folder, make_tables(rng), _results(), _manifest()))


def test_the_report_is_whole(rendered: Path) -> None:
    path = rendered
    assert path.name == "report.html"
    assert path.stat().st_size < 10_000_000
    page = read(path)
    assert set(page.figures) == set(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert {f"plot-{name}" for name in SECTIONS} <= set(page.ids)
    anchors = [str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert {*SECTIONS, "answers", "methods", "limits", "references", "provenance"} <= set(anchors)
    text = words(page)
    assert "rose from 0.1 % [0.0, 0.5] to 74 % [66, 81]" in text
    assert "arXiv:2507.21509" in text
    assert "persona-probe demo --out runs/demo" in text
    assert "3 answers could not be judged" in text
    assert "no-judge" not in page.ids
    assert sum(attributes.get("class") == "asked" for attributes in page.all("article")) == 12


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A run without tables, which is quick to report on."""
    return _write_run(tmp_path / "bare", {}, {"judge": None}, None)


def test_only_the_report_is_left_in_the_folder(bare: Path) -> None:
    before = {path.name for path in bare.iterdir()}
    render_report(bare)
    render_report(bare)
    assert {path.name for path in bare.iterdir()} == before | {"report.html"}


def test_a_failed_write_leaves_the_old_report(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = render_report(bare).read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        render_report(bare)
    assert (bare / "report.html").read_bytes() == old
    assert not list(bare.glob(".report-*"))


def test_nothing_is_loaded_from_elsewhere(rendered: Path) -> None:
    page = read(rendered)
    loading = {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "source", "base", "form"}
    assert not [tag for tag, attributes in page.tags if tag in loading and {"src", "href", "action"} & set(attributes)]
    links = {str(link["href"]) for link in page.all("a")}
    assert all(
        link.startswith(("#", "https://arxiv.org/abs/", "tables/", "results.json", "manifest.json")) for link in links
    )
    style = (Path(render_report.__code__.co_filename).parent / "report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_admits_the_pages_own_scripts_and_no_request(rendered: Path) -> None:
    page = read(rendered)
    (policy,) = [str(tag["content"]) for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    runnable = [script for script in page.scripts if not script.startswith('{"figures"')]
    assert len(runnable) == 3
    for script in runnable:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert FIGURE_CONFIG["modeBarButtons"] == [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]


def test_readable_without_eyes_or_mouse(rendered: Path) -> None:
    page = read(rendered)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(SECTIONS)
    assert len(page.all("table")) == len(page.all("caption"))
    plots = [attributes for attributes in page.all("div") if attributes.get("class") == "plot"]
    assert all(str(plot["aria-label"]).startswith("Figure: ") for plot in plots)
    assert all("scope" in heading for heading in page.all("th"))


def test_captions_state_n_interval_and_null(rendered: Path) -> None:
    captions = " ".join(re.findall(r"<figcaption>(.*?)</figcaption>", rendered.read_text()))
    assert "n = 192 to 1,104 judged answers per row" in captions
    assert captions.count("95&nbsp;% intervals") >= 6
    assert "20 random directions moved by the same displacement" in captions
    assert captions.lower().count("null") >= 5


def hostile_run(tables: dict[str, pd.DataFrame], results: dict[str, Any], manifest: dict[str, Any]) -> None:
    answers = tables["answers"]
    topics = answers["group"] + HOSTILE
    tables["answers"] = answers.assign(answer=HOSTILE, prompt=HOSTILE, group=topics, persona=HOSTILE)
    tables["persona_shares"] = tables["persona_shares"].replace("villain", HOSTILE)
    tables["direction_cosines"] = tables["direction_cosines"].replace("contrast of context", HOSTILE)
    for shares in results["persona_shares"].values():
        shares[HOSTILE] = shares.pop("villain")
    results.update(title=HOSTILE, subtitle=HOSTILE, judge=HOSTILE, notes=[HOSTILE, "\ud800"])
    manifest.update(command=HOSTILE, started=HOSTILE, layer_convention=HOSTILE)
    manifest["config"][HOSTILE] = HOSTILE
    manifest["models"]["before"]["default_system_prompt"] = HOSTILE


def test_hostile_text_stays_text(tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any) -> None:
    hostile_run(tables, results, manifest)
    page = read(render_report(write_run(tmp_path / "run", tables, results, manifest)))
    assert len(page.scripts) == 4
    assert page.all("img") == []
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert HOSTILE.replace("\u202e", "\ufffd") in page.text
    assert "\u202e" not in page.text
    labels = json.dumps(page.figures)
    assert "<script" not in labels
    assert "<img" not in labels
    assert "&lt;script" in labels


def test_embedded_json_cannot_end_its_element() -> None:
    value = {"text": "</script><!-- & \u2028", "number": 1.5}
    text = str(embed_json(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_without_a_judge_a_box_says_so(
    tmp_path: Path, write_run: Any, unjudged: tuple[Any, Any], manifest: dict[str, Any]
) -> None:
    page = read(render_report(write_run(tmp_path / "run", *unjudged, manifest)))
    assert "no-judge" in page.ids
    text = words(page)
    assert "No judge applies to this model's answers, so no EM rate is reported." in text
    assert set(page.figures) == {
        "summary",
        "directions",
        "amplification",
        "finders",
        "probe",
        "same-words",
        "realignment",
    }
    assert "rose from" not in text
    assert "not judged" in text
    assert "Realignment took the projection from +2.54 SD" in text


@pytest.mark.parametrize(
    ("missing", "how"),
    [("em_rates", "empty"), ("em_rates", "absent"), ("steering", "absent"), ("probe", "empty"), ("answers", "absent")],
)
def test_a_missing_table_is_said_to_be_missing(
    missing: str, how: str, tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any
) -> None:
    table = tables.pop(missing)
    if how == "empty":
        tables[missing] = table.iloc[:0]
    page = read(render_report(write_run(tmp_path / "run", tables, results, manifest)))
    expected = "This run has no answers of both models" if missing == "answers" else "This study did not measure it."
    assert expected in words(page)
    # The figures of single answers are left out with them; any other section says what it misses.
    assert len(page.figures) == len(SECTIONS) - (2 if missing == "answers" else 1)


def test_results_alone_make_a_report(tmp_path: Path, write_run: Any) -> None:
    page = read(render_report(write_run(tmp_path / "run", {}, {"judge": None}, None)))
    assert page.figures == {}
    assert "left no manifest.json" in words(page)


def test_tables_are_read_from_csv_where_there_is_no_parquet(run_folder: Path) -> None:
    for path in (run_folder / "tables").glob("*.parquet"):
        path.unlink()
    assert set(read(render_report(run_folder)).figures) == set(SECTIONS)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(PersonaProbeError, match=r"holds no results\.json"):
        render_report(tmp_path)
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"results\.json must hold a JSON object, not list"):
        render_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is not valid JSON"):
        render_report(tmp_path)


def test_reporting_never_imports_torch() -> None:
    code = "import sys, persona_probe.report.run_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
