from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_probe.amplification.finder_comparison_result import FinderComparison

FINDERS = {
    "mean-difference": (False, "amplified", 9.5),
    "logistic": (False, "amplified", 5.1),
    "benign": (False, "moved, but no more than its nulls", 0.8),
    "random": (True, "moved, but no more than its nulls", 0.4),
}


def verdict(control: float = 0.1, **findings: str) -> str:
    """What is said of four finders at layer 1, of which ``findings`` replaces some; layer 0 must not count."""
    return verdict_of(FINDERS, control, **findings)


def verdict_of(finders: dict[str, tuple[bool, str, float]], control: float = 0.1, **findings: str) -> str:
    rows: list[dict[str, Any]] = [
        {
            "finder": name,
            "layer": layer,
            "null": null,
            "finding": findings.get(name.replace("-", "_"), finding) if layer == 1 else "amplified",
            "specificity": specificity,
            "specificity_low": 0.8 * specificity,
            "specificity_high": 1.2 * specificity,
            "control_shift_sd": control,
            "replication": "replicates",
            "chosen": layer == 1,
        }
        for name, (null, finding, specificity) in finders.items()
        for layer in (0, 1)
    ]
    nothing: Any = None
    return FinderComparison(pd.DataFrame(rows), nothing, {}, nothing, 1).verdict()


def test_the_most_specific_is_named() -> None:
    assert verdict() == (
        "At layer 1, 2 of 3 directions are amplified beyond their nulls; the largest specificity is that of "
        "mean-difference (9.5 [7.6, 11.4]); of 1 that find nothing by design, 0 moved beyond their nulls."
    )


def test_an_order_that_is_open_is_not_claimed() -> None:
    assert verdict(benign="amplified").count("order is open") == 0
    rows = {**FINDERS, "logistic": (False, "amplified", 9.0)}
    assert "whose interval overlaps with that of logistic: their order is open" in verdict_of(rows)


def test_one_run_moved_and_nothing_is_amplified() -> None:
    alone = dict.fromkeys(("mean_difference", "logistic"), "moved, one run")
    assert verdict(**alone).startswith("At layer 1, 2 of 3 directions moved beyond their nulls in one run; the largest")


@pytest.mark.parametrize("finding", ["amplified", "reduced", "amplified, but other traits as much"])
def test_of_nulls_by_design_a_reduction_counts_too(finding: str) -> None:
    assert verdict(random=finding).endswith("of 1 that find nothing by design, 1 moved beyond their nulls.")
    assert "1 of 3 directions are amplified" in verdict(logistic="reduced")


def test_an_amplification_that_other_traits_share_is_counted_and_said() -> None:
    shared = verdict(logistic="amplified, but other traits as much")
    assert "2 of 3 directions are amplified beyond their nulls" in shared
    assert "; for 1 of them, other traits' directions move as much; " in shared


def test_without_a_control_none_is_said_to_be_amplified() -> None:
    alone = dict.fromkeys(("mean_difference", "logistic"), "moved; no control")
    assert verdict(np.nan, **alone) == (
        "At layer 1, 2 of 3 directions moved further than the available nulls; there is no control, so none can "
        "be distinguished from what any fine-tuning does."
    )
