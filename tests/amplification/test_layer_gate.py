"""A layer is chosen only among those at which the direction replicates; else nothing is headlined."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.amplification.verdict import Finding
from persona_probe.figures.amplification import amplification
from tests.amplification.planted import WIDTH, activations, captures, direction, reference
from tests.figure_notes import note

FEW = {"n_random": 50, "n_shuffled": 50, "n_permutations": 500}


def carded(replicates, layers=2):
    """The planted direction, with a card by which it replicates at these layers."""
    plain = direction(0, layers=layers)
    passed = [layer in replicates for layer in range(layers)]
    checks = {
        "split_half_cosine": [0.9 if good else -0.72 for good in passed],
        "held_out_auroc": [0.86 if good else 0.47 for good in passed],
        "held_out_auroc_low": [0.78 if good else 0.33 for good in passed],
        "held_out_auroc_high": [0.91 if good else 0.61 for good in passed],
        "shuffled_p_corrected": [0.001 if good else 0.9 for good in passed],
        "replicates": passed,
        "unchecked": None,
    }
    return pp.Direction(plain.vectors, plain.layers, {"checks": checks})


def runs(layers=2):
    return pp.Captures.over_seeds([captures(layers=layers, seed=seed) for seed in range(3)])


def measured(replicates, layers=2):
    return pp.measure_amplification(carded(replicates, layers), runs(layers), reference(layers), **FEW)


def test_the_layer_that_moved_most_is_not_chosen_if_the_direction_does_not_replicate_there():
    best = pp.choose_layer(measured({0, 1}))
    other = 1 - best
    one = measured({other})
    assert pp.choose_layer(one) == other
    assert one.finding(other) is Finding.AMPLIFIED
    assert one.finding(best) is Finding.NO_DIRECTION
    assert one.allowed_layers() == [other]
    assert one.no_layer() is None
    assert "held-out AUROC 0.86 [0.78, 0.91]" in one.verdict(other)
    assert f"after at layer {other}:" in one.headline()


def test_a_direction_that_replicates_nowhere_is_headlined_nowhere():
    none = measured(set())
    says = "no layer at which this direction replicates (of 2 the best is layer 0: split-half cosine -0.72"
    with pytest.raises(pp.PersonaProbeError, match=r"no layer at which this direction replicates \(of 2"):
        pp.choose_layer(none)
    assert none.no_layer().startswith(says)
    assert says in none.headline()
    assert not none.shown()["finding"].isin(["amplified", "moved, one run"]).any()
    assert all("amplified" not in none.verdict(layer) for layer in (0, 1))
    assert none.table[["p_corrected", "p_runs"]].isna().all().all()
    figure = amplification(none.table.assign(chosen=False))
    assert note(figure).startswith("No layer at which this direction replicates")
    assert {trace.name for trace in figure.data} >= {"open: the direction does not replicate"}


def test_layers_at_which_it_does_not_replicate_cost_the_others_nothing():
    """The permutations' largest statistic is over the layers that are left."""
    noisy = captures(narrow=0.12, tuned=0.0, layers=6, noise=0.5, seed=1, control=False)
    along = carded({0}, 6)
    everywhere = pp.measure_amplification(direction(0, layers=6), noisy, reference(6), **FEW).table
    gated = pp.measure_amplification(along, noisy, reference(6), **FEW).table
    alone = pp.measure_amplification(
        carded({0}, 1), captures_of_layer(noisy, 0), reference_of_layer(reference(6), 0), **FEW
    ).table
    assert gated["p_corrected"].iloc[0] == alone["p_corrected"].iloc[0] <= everywhere["p_corrected"].iloc[0]
    assert gated["p_corrected"].iloc[1:].isna().all()


def captures_of_layer(taken, layer):
    return pp.Captures(*(reference_of_layer(part, layer) for part in (taken.before, taken.after)))


def reference_of_layer(read, layer):
    return pp.Activations(read.values[:, [layer]], read.table, (layer,), read.source)


def test_a_direction_without_a_card_is_said_not_to_be_checked():
    moved = pp.measure_amplification(direction(0, layers=2), runs(), reference(2), **FEW)
    assert moved.allowed_layers() == [0, 1]
    assert moved.finding(0) is Finding.AMPLIFIED
    assert "replication not checked (direction.checked_on(positive, negative)" in moved.verdict(0)
    assert "replication not checked" in moved.headline()
    assert "was not checked" in note(moved.plot())


def test_label_shuffled_directions_are_headlined_nowhere_in_twenty():
    """Real differences of questions, with labels exchanged; what any of the layers shows by chance is not chosen."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(20):
        base = rng.normal(size=(24, 6, WIDTH)) * np.linspace(3.0, 0.2, WIDTH)
        trait = base + np.eye(WIDTH)[0] * 2
        swapped = rng.integers(2, size=(24, 1, 1)).astype(bool)
        pairs = ((trait, base), (base, trait))
        one, other = (activations(np.where(swapped, *pair) + 0.1 * rng.normal(size=base.shape), 24) for pair in pairs)
        noise = pp.find_direction(one, other)
        taken = captures(narrow=rng.normal(), layers=6, control=False)
        moved = pp.measure_amplification(noise, taken, reference(6), **FEW)
        found += moved.no_layer() is None
    assert found <= 1


def test_tables_of_a_course_say_it_too():
    table = pd.concat([measured({1}).table.assign(step=step, name=f"step {step}") for step in (0, 10)])
    course = pp.amplification.AmplificationCourse(table)
    assert "layer 1 (moved most)" in course.headline()
    assert "split-half cosine 0.90" in course.headline()
    none = pp.amplification.AmplificationCourse(table.assign(replication="does not replicate"))
    assert none.headline() == (
        "direction: no layer at which this direction replicates, so that no shift along it shows anything"
    )
