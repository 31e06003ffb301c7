"""Errors of other libraries, in one line."""

import pytest

from persona_probe.errors import library_message


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no such file\nSee the manual."), "no such file"),
        (
            RuntimeError("\n  while loading:\n\tsize mismatch for a\n\n\tsize mismatch for b\n"),
            "while loading: size mismatch for a size mismatch for b",
        ),
        (KeyError("model.norm.weight"), "KeyError 'model.norm.weight'"),
        (AssertionError(), "AssertionError"),
        (
            ValueError("wrong:\n" + "\n".join(f"line {i}" for i in range(20))),
            "wrong: " + " ".join(f"line {i}" for i in range(11)) + " ... (and 9 more lines)",
        ),
    ],
)
def test_a_first_line_that_only_announces_the_rest_is_not_shown_alone(error, line):
    assert library_message(error) == line
