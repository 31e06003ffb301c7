import dataclasses

import numpy as np
import pytest

import persona_probe as pp
from tests.amplification.planted import captures, direction, reference

FEW = {"n_random": 50, "n_shuffled": 50, "n_permutations": 200}


@pytest.fixture(scope="module")
def moved():
    named = {"<b>one": direction(0, layers=2), "other": direction(1, layers=2)}
    return pp.measure_amplification(named, captures(layers=2), reference(2), **FEW)


def test_it_gives_the_shift_where_after_and_control_differ_most_beside_its_nulls(moved):
    # Layer 0 is made the one that moves most, and downwards.
    here = (moved.table["layer"] == 0) & (moved.table["direction"] == "<b>one")
    numbers = {"shift_sd": -7.5, "low_sd": -8.0, "high_sd": -7.0, "random_sd": 0.625, "contrast_sd": -7.625}
    table = moved.table.copy()
    table.loc[here & (table["model"] == "after"), list(numbers)] = list(numbers.values())
    table.loc[here & (table["model"] == "control"), "shift_sd"] = 0.125
    said = dataclasses.replace(moved, table=table).headline()
    assert said.startswith(
        "'<b>one': after at layer 0 (which choose_layer takes of 2): -7.50 SD [-8.00, -7.00] (control +0.12; 97.5 % "
        "of random directions below 0.62); replication not checked; n = 120 dialogues of 30 questions; of 4 (2 "
        "directions x 2 layers), "
    )
    assert said.endswith("nulls")
    assert "&lt;b&gt;one" in moved._repr_html_()


def test_what_was_not_measured_is_not_given_as_a_number(moved):
    alone = moved.table[moved.table["model"] == "after"].assign(random_sd=np.nan, low_sd=np.nan, high_sd=np.nan)
    said = dataclasses.replace(moved, table=alone).headline()
    assert "SD [no interval] (no control); replication not checked; n = 120" in said
    assert "nan" not in said
    nothing = dataclasses.replace(moved, table=moved.table.assign(shift_sd=np.nan))
    assert nothing.headline() == repr(nothing)
