"""The README's example runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
NUMBER = re.compile(r"[-+]?\d+\.?\d*")


def numbers_apart(text: str) -> tuple[str, list[float]]:
    """The text without its line breaks and numbers, and the numbers."""
    return re.sub(r"[-+]?\d+\.?\d*", "#", " ".join(text.split())), [
        float(x) for x in re.findall(r"[-+]?\d+\.?\d*", text)
    ]


def test_the_python_example_prints_what_it_says(monkeypatch, capsys):
    monkeypatch.chdir(README.parent)
    code, shown = re.search(
        r"```python\n(.*?)```\n+```text\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    ).groups()
    assert len(code.strip().splitlines()) <= 14
    exec(compile(code, "README.md", "exec"), {})
    words, numbers = numbers_apart(capsys.readouterr().out)
    expected_words, expected_numbers = numbers_apart(shown)
    assert words == expected_words
    # Another processor may draw another token now and then.
    assert numbers == pytest.approx(expected_numbers, rel=0.05, abs=0.05)


def test_the_images_it_shows_are_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / path).is_file(), path
