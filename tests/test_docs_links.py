"""Documentation: relative links and pictures are there, public names that are mentioned exist, and all are listed."""

import ast
import json
import re
import textwrap
from pathlib import Path

import pytest

from tests.public_names import public_names, unknown_names

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "notebooks"} & set(page.parts)),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
FENCED = re.compile(r"^(```|:::)(.*?)\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def prose_of(text: str) -> str:
    """Without code: fenced blocks, and what stands between backticks."""
    return re.sub(r"`[^`\n]+`", "code", FENCED.sub("", text))


def anchors_of(page: Path) -> set[str]:
    """The anchors that MyST and GitHub make of headings."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return set(slugs)


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(prose_of(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page if not path else (page.parent / path)
        made_while_building = path.endswith("notebooks/index.md")
        if not there.exists() and not made_while_building:
            broken.append(target)
        elif anchor and there.suffix == ".md" and anchor not in anchors_of(there):
            broken.append(f"{target} (no such heading)")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    assert broken_links(page) == []


def test_what_is_missing_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading\n\n[self](#a-heading) [web](https://example.org)\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#a-heading) [b](gone.md) ![c](gone.png) [d](there.md#other) `[e](code.md)`\n")
    assert broken_links(tmp_path / "there.md") == []
    assert broken_links(page) == ["gone.md", "gone.png", "there.md#other (no such heading)"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_are_python_and_name_what_there_is(page):
    text = page.read_text(encoding="utf-8")
    for block in PYTHON.findall(text):
        ast.parse(textwrap.dedent(block))
    assert unknown_names(text) == []


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. (?:auto\w+|py:data):: persona_probe\.([\w.]+)$", page, re.MULTILINE))
    rooms = {name.partition(".")[0] for name in public_names() if "." in name}
    # A name that stands flat is in its room too, and is described once.
    missing = {name for name in public_names() - rooms if name not in listed}
    missing = {name for name in missing if name.rpartition(".")[2] not in listed}
    assert sorted(missing) == []


def test_every_page_is_in_a_table_of_contents():
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES if page.is_relative_to(ROOT / "docs")}
    listed = {Path("index")}
    for page in PAGES:
        for kind, _, body in [found.groups() for found in FENCED.finditer(page.read_text(encoding="utf-8"))]:
            del kind
            for line in body.splitlines():
                name = line.strip()
                if name and not name.startswith((":", "#")) and (page.parent / f"{name}.md").is_file():
                    listed.add((page.parent / f"{name}.md").resolve().relative_to(ROOT / "docs").with_suffix(""))
    assert sorted(pages - listed) == []


@pytest.fixture
def copy_notebooks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extensions")
    import copy_notebooks

    return copy_notebooks


def notebook(folder, name, cells):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def test_notebooks_become_pages(copy_notebooks, tmp_path):
    figure = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4]}], "layout": {}}
    shown = {"output_type": "display_data", "metadata": {}, "data": {copy_notebooks.PLOTLY: figure, "text/plain": "F"}}
    said = {
        "cell_type": "markdown",
        "metadata": {},
        "source": ["[a](../docs/models.md)\n", "[b](2.ipynb), [c](1.ipynb)"],
    }
    code = {"cell_type": "code", "metadata": {}, "source": "figure", "outputs": [shown], "execution_count": 1}
    notebook(tmp_path / "notebooks", "1.ipynb", [said, code])
    (tmp_path / "_static").mkdir()
    copies = copy_notebooks.copy_notebooks(tmp_path / "notebooks", tmp_path / "docs", tmp_path / "_static")
    assert copies == [tmp_path / "docs" / "1.ipynb"]
    cells = json.loads(copies[0].read_text())["cells"]
    assert cells[0]["source"] == "[a](../models.md)\nb, [c](1.ipynb)"  # there is no notebook 2
    drawn = cells[1]["outputs"][0]["data"]
    assert list(drawn) == ["text/html"]
    assert "_static/plotly.min.js" in drawn["text/html"]
    assert (tmp_path / "_static" / "plotly.min.js").stat().st_size > 1_000_000
    assert "\n1\n```" in (tmp_path / "docs" / "index.md").read_text()


def test_without_notebooks_there_is_still_a_page(copy_notebooks, tmp_path):
    assert copy_notebooks.copy_notebooks(tmp_path / "none", tmp_path / "docs", tmp_path) == []
    assert "toctree" not in (tmp_path / "docs" / "index.md").read_text()


def test_every_formula_can_be_drawn():
    drawing = pytest.importorskip("docutils.utils.math.latex2mathml", reason="needs the docs extra")
    found = 0
    for page in PAGES:
        prose = re.sub(r"`[^`\n]+`", "", FENCED.sub("", page.read_text(encoding="utf-8")))
        for formula in re.findall(r"\$\$(.+?)\$\$", prose, re.DOTALL) + re.findall(r"(?<!\$)\$([^$\n]+)\$", prose):
            drawing.tex2mathml(formula, as_block=True)
            found += 1
    assert found > 20
