import json
import math

import pytest

from persona_probe.statistics.estimate import Estimate


def test_reads_as_value_interval_and_rows() -> None:
    assert str(Estimate(0.42, 0.36, 0.48, 512, "t over 40 questions")) == "0.42 [0.36, 0.48] (n=512)"


def test_a_narrow_interval_gets_decimals_enough_to_see_its_ends() -> None:
    assert str(Estimate(0.0012, 0.0004, 0.0031, 4000, "Wilson")) == "0.0012 [0.0004, 0.0031] (n=4000)"


def test_a_small_rate_does_not_read_as_zero() -> None:
    assert str(Estimate(0.0025, 0.0, 0.325, 400, "Wilson")) == "0.003 [0.000, 0.325] (n=400)"
    assert str(Estimate(0.0, 0.0, 0.32, 400, "Wilson")) == "0.00 [0.00, 0.32] (n=400)"


def test_missing_says_why_and_is_valid_json() -> None:
    missing = Estimate.missing("no row qualifies")
    assert missing.is_missing
    assert missing.n == 0
    assert str(missing) == "missing (no row qualifies)"
    loaded = json.loads(json.dumps(missing.as_dict(), allow_nan=False))
    assert loaded["value"] is None
    assert loaded["high"] is None
    assert loaded["method"] == "no row qualifies"


def test_dictionary_holds_every_field() -> None:
    estimate = Estimate(0.5, 0.25, 0.75, 8, "Wilson", 0.9)
    assert Estimate(**estimate.as_dict()) == estimate  # type: ignore[arg-type]


def test_value_without_interval_says_so() -> None:
    assert "no interval" in str(Estimate(1.5, math.nan, math.nan, 3, "one question and one seed"))


def test_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Estimate(0.5, 0.4, 0.6, 9, "t").value = 0.1  # type: ignore[misc]


def test_an_interval_without_an_upper_end_is_shown() -> None:
    assert str(Estimate(2.5, 0.5, math.inf, 40, "Fieller")) == "2.50 [0.50, inf] (n=40)"


def test_a_value_that_is_rounding_compared_with_its_interval_reads_as_zero() -> None:
    assert str(Estimate(3e-10, -0.16, 0.16, 9, "")) == "0.00 [-0.16, 0.16] (n=9)"
    assert str(Estimate(0.0004, 0.0, 0.02, 9, "")) == "0.0004 [0.0000, 0.0200] (n=9)"
