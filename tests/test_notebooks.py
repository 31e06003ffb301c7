"""The notebooks as they are kept: executed, with clean outputs, and whole. Executing them is `make notebooks`."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.public_names import unknown_names

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = (
    "1-quickstart",
    "2-directions-and-amplification",
    "3-probes-and-monitoring",
    "4-sae-latents",
    "5-steering-and-realignment",
    "6-your-own-model",
    "7-a-real-villain",
)
LAST_SECTION = "The same on your model"
LARGEST = 3_000_000
"""Bytes of a notebook with its outputs."""
_ABSOLUTE = re.compile(
    rf"(?<![\w.:/~-])/(?:{re.escape(FOLDER.parts[1])}|home|tmp|root|usr|var|opt|private|Users)/|[A-Z]:\\\\?Users"
)
"""A path of one machine: of this one, where the clone lies, or of any."""
_WARNED = re.compile(r"\b\w*Warning: ")
_SILENT = ("cleanup", "close", "seed", "manual_seed", "set_num_threads")
"""Calls that give nothing to show."""


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(notebook: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def text_of(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def shows_something(source: str) -> bool:
    """Whether a cell ends in an expression, or prints outside of functions."""
    body = ast.parse(source).body
    if not body:
        return False
    last = body[-1]
    called = last.value.func if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) else None
    silent = isinstance(called, ast.Attribute) and called.attr in _SILENT
    printed = any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for statement in body
        if isinstance(statement, ast.Expr | ast.For)
        for node in ast.walk(statement)
    )
    return printed or (isinstance(last, ast.Expr) and not silent and not source.rstrip().endswith(";"))


def written(output: dict[str, Any]) -> Iterator[str]:
    """All text of an output; pictures hold none."""
    yield text_of(output.get("text", ""))
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/png"):
            yield text_of(value) if isinstance(value, str | list) else json.dumps(value)


def python_in(notebook: dict[str, Any]) -> Iterator[str]:
    """The code, and the examples in the text."""
    yield from (text_of(cell["source"]) for cell in cells(notebook, "code"))
    for cell in cells(notebook, "markdown"):
        yield from re.findall(r"```python\n(.*?)```", text_of(cell["source"]), re.DOTALL)


def faults(notebook: dict[str, Any]) -> list[str]:
    """What is wrong with a notebook, in words."""
    found = []
    code = cells(notebook, "code")
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"not executed from top to bottom: {counts}")
    for cell in code:
        source, outputs = text_of(cell["source"]), cell["outputs"]
        begins = source.strip().splitlines()[0]
        if shows_something(source) and not outputs:
            found.append(f"no output: {begins}")
        for output in outputs:
            if output["output_type"] == "error":
                found.append(f"error {output['ename']}: {begins}")
            if output.get("name") == "stderr":
                found.append(f"stderr {text_of(output['text'])[:80]!r}: {begins}")
            for text in written(output):
                found += [f"warning {match[0]!r}: {begins}" for match in _WARNED.finditer(text)]
                found += [
                    f"path {text[match.start() :][:60]!r} in output: {begins}" for match in _ABSOLUTE.finditer(text)
                ]
    for cell in notebook["cells"]:
        text = text_of(cell["source"])
        found += [f"path {text[match.start() :][:60]!r} in source" for match in _ABSOLUTE.finditer(text)]
    headings = [
        line.lstrip("# ").strip()
        for cell in cells(notebook, "markdown")
        for line in re.sub(r"```.*?```", "", text_of(cell["source"]), flags=re.DOTALL).splitlines()
        if line.startswith("## ")
    ]
    if not headings or headings[-1] != LAST_SECTION:
        found.append(f"the last section is {headings[-1:]}, not {LAST_SECTION!r}")
    found += [f"pp.{name} is not a public name" for source in python_in(notebook) for name in unknown_names(source)]
    return found


def test_there_are_these_notebooks_and_no_others():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_executed_and_clean(name):
    assert faults(read(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_it_has_stable_ids_a_plain_kernel_and_a_reasonable_size(name):
    notebook = read(name)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    assert text_of(notebook["cells"][0]["source"]).startswith(f"# {name[0]} · ")


@pytest.mark.parametrize("name", NAMES)
def test_links_between_notebooks_lead_somewhere(name):
    for cell in cells(read(name), "markdown"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(cell["source"])):
            assert (FOLDER / target).exists(), target


def _first_code(notebook: dict[str, Any]) -> dict[str, Any]:
    return cells(notebook, "code")[0]


def _stderr(notebook: dict[str, Any]) -> None:
    _first_code(notebook)["outputs"].append({"output_type": "stream", "name": "stderr", "text": ["hm"]})


def _warning(notebook: dict[str, Any]) -> None:
    _first_code(notebook)["outputs"].append({"output_type": "stream", "name": "stdout", "text": "UserWarning: hm"})


def _error(notebook: dict[str, Any]) -> None:
    _first_code(notebook)["outputs"].append({"output_type": "error", "ename": "ValueError"})


def _path(notebook: dict[str, Any]) -> None:
    data = {"text/html": ["<p>in ", "/home/me/x</p>"]}
    _first_code(notebook)["outputs"].append({"output_type": "display_data", "data": data})


def _path_in_source(notebook: dict[str, Any]) -> None:
    _first_code(notebook)["source"] = "folder = '/home/me/main'"


def _no_output(notebook: dict[str, Any]) -> None:
    _first_code(notebook).update(source="for i in range(3):\n    print(i)", outputs=[])


def _not_run(notebook: dict[str, Any]) -> None:
    _first_code(notebook)["execution_count"] = None


def _another_end(notebook: dict[str, Any]) -> None:
    notebook["cells"].append({"cell_type": "markdown", "id": "end", "metadata": {}, "source": "## One more thing"})


def _private_name(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["source"] = "# 1\n```python\npp.no_such_name()\n```"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_stderr, "stderr 'hm'"),
        (_warning, "warning 'UserWarning: '"),
        (_error, "error ValueError"),
        (_path, "path '/home/me/x</p>' in output"),
        (_path_in_source, 'path "/home/me/main\'" in source'),
        (_no_output, "no output: for i in range(3):"),
        (_not_run, "not executed from top to bottom"),
        (_another_end, "the last section is ['One more thing']"),
        (_private_name, "pp.no_such_name is not a public name"),
    ],
)
def test_what_is_wrong_is_found(harm: Callable[[dict[str, Any]], None], said: str):
    clean = {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# 1 · Title\n", f"## {LAST_SECTION}"]},
            {"cell_type": "code", "id": "b", "metadata": {}, "source": "x = 1", "outputs": [], "execution_count": 1},
        ]
    }
    assert faults(clean) == []
    harmed = copy.deepcopy(clean)
    harm(harmed)
    assert any(said in fault for fault in faults(harmed)), faults(harmed)
