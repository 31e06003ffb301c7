"""The examples in the package's docstrings give what they say, in every module that has any."""

import doctest
import importlib
from pathlib import Path

import pytest

import persona_probe as pp

PACKAGE = Path(pp.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8")]
    return [
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for file in files
    ]


def failures(module) -> tuple[list[str], int]:
    """What each failed example expected and got, and how many examples were run."""
    runner, report = doctest.DocTestRunner(optionflags=FLAGS), []
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=report.append)
    return report, runner.tries


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report, tried = failures(importlib.import_module(name))
    assert not report, "".join(report)
    assert tried


def test_a_wrong_example_is_found(tmp_path, monkeypatch):
    (tmp_path / "wrong.py").write_text('def two():\n    """Two.\n\n    >>> two()\n    3\n    """\n    return 2\n')
    monkeypatch.syspath_prepend(tmp_path)
    report, tried = failures(importlib.import_module("wrong"))
    assert tried == 1
    assert "Expected:\n    3\nGot:\n    2" in report[-1]
