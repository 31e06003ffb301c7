from __future__ import annotations

import numpy as np
import pytest

from persona_probe.figures.text import (
    count_range,
    counted,
    escape_markup,
    is_number,
    is_true,
    percent,
    percent_interval,
    signed,
    visible,
)


@pytest.mark.parametrize(
    ("share", "written"), [(0.0, "0.0 %"), (0.001, "0.1 %"), (0.742, "74 %"), (0.996, "99.6 %"), (1.0, "100 %")]
)
def test_percent_keeps_a_decimal_where_it_matters(share: float, written: str) -> None:
    assert percent(share) == written


def test_an_interval_has_the_decimals_of_its_value() -> None:
    assert percent_interval(0.742, 0.66, 0.81) == "74 % [66, 81]"
    assert percent_interval(0.001, 0.0, 0.005) == "0.1 % [0.0, 0.5]"
    assert percent_interval(0.5, None, float("nan")) == "50 %"


def test_a_rounded_zero_is_positive() -> None:
    assert signed(-0.0001) == "+0.00"
    assert signed(-1.234) == "-1.23"


def test_what_counts_as_a_number() -> None:
    assert is_number(np.int64(3))
    assert is_number(0.5)
    assert not any(map(is_number, (None, "1", True, np.bool_(True), float("nan"), float("inf"))))


def test_what_counts_as_yes() -> None:
    assert all(map(is_true, (True, np.bool_(True), "True")))
    assert not any(map(is_true, (False, None, float("nan"), "False")))


def test_what_terminals_obey_and_what_turns_text_around_is_made_visible() -> None:
    assert visible("a\x1b[31mb\u202ec\n\td") == "a\ufffd[31mb\ufffdc\n\td"
    assert visible("ze\u200bro\u00adwidth\ufeff") == "ze\ufffdro\ufffdwidth\ufffd"
    assert visible("\u06a9\u200c\u0645") == "\u06a9\u200c\u0645"  # a joiner inside a word is spelling


def test_counts() -> None:
    assert counted(1104.0) == "1,104"
    assert counted(float("nan")) == "–"
    assert count_range([384, 96, float("nan")]) == "96 to 384"
    assert count_range([5, 5]) == "5"
    assert count_range([]) == "–"


def test_markup_is_escaped() -> None:
    assert escape_markup("<b>&</b>") == "&lt;b&gt;&amp;&lt;/b&gt;"
