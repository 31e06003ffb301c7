"""Finders on planted poles: the trait lies along dimension 0, which narrow training moves."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.amplification.finder_comparison import _choose, compare_finders
from persona_probe.amplification.verdict import Finding
from tests.amplification.planted import WIDTH, activations, captures, direction, reference

FINDERS = ["mean-difference", "logistic", "random"]


def pole(mean, seed, first):
    values = np.random.default_rng(seed).normal(size=(60, 1, WIDTH))
    values[:, :, 0] += mean
    questions = [f"q{first + i % 30}" for i in range(60)]
    side = activations(values)
    side.table["question"] = questions
    side.table["group"] = questions
    return side


POSITIVE, NEGATIVE = pole(3.0, 1, 0), pole(0.0, 2, 0)
HELD_OUT = pole(3.0, 3, 100), pole(0.0, 4, 100)


RUNS = pp.Captures.over_seeds([captures(tuned=0.0, seed=seed) for seed in range(3)])


def compared(**options):
    given = {"finders": FINDERS, "layer": 0, "n_random": 200, **options}
    return compare_finders(POSITIVE, NEGATIVE, HELD_OUT, RUNS, reference(), **given)


def test_finders_have_every_null_and_recipes_all_but_shuffled_labels():
    found = compared(others={"recipe": direction(0)}, other_traits={"far": direction(9)})
    rows = found.amplification.table.set_index(["direction", "model"]).xs("after", level="model")
    assert rows.loc[FINDERS, "shuffled_sd"].notna().all()
    assert np.isnan(rows.loc["recipe", "shuffled_sd"])
    assert rows["other_traits_sd"].notna().all()
    table = found.at_layer().set_index("finder")
    assert table["isotropic_sd"].gt(0).all()
    assert table.loc["mean-difference", "finding"] == Finding.AMPLIFIED.value
    assert table["null"].to_dict() == {"recipe": False, "mean-difference": False, "logistic": False, "random": True}


def test_a_trait_that_moves_more_is_said_to_share_it():
    table = compared(other_traits={"purer": direction(0)}).at_layer().set_index("finder")
    assert table.loc["mean-difference", "finding"] == Finding.SHARED.value


def test_a_finder_without_halves_does_not_decide_the_layer():
    names = ("split_half_cosine", "held_out_auroc", "held_out_auroc_low", "held_out_auroc_high")
    checks = {**{name: [0.7, 0.9] for name in names}, "shuffled_p_corrected": [0.01, 0.01], "replicates": [True, True]}
    nothing = {**dict.fromkeys(checks), "replicates": [False, False]}
    found = [pp.Direction(np.eye(2), (0, 1), {"checks": given}) for given in (checks, nothing)]
    assert _choose(dict(zip("ab", found, strict=True))) == 1


def test_a_layer_that_was_not_captured_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="layer 7 is not in the captures, which hold 0"):
        compared(layer=7)


def test_classifiers_and_nulls_are_known_by_their_card_whatever_they_are_called():
    classifier, null = (pp.find_direction(POSITIVE, NEGATIVE, finder) for finder in ("logistic", "random"))
    found = compared(others={"mine": classifier, "mean-difference by hand": direction(0), "nothing": null})
    cosines = found.cosines.table.set_index(["first", "second"])["cosine"]
    assert cosines["logistic", "mine"] == pytest.approx(1.0)
    mine = classifier.as_pattern(
        pp.Activations(
            np.concatenate([POSITIVE.values, NEGATIVE.values]),
            pd.concat([POSITIVE.table, NEGATIVE.table], ignore_index=True),
            POSITIVE.layers,
            NEGATIVE.source,
        )
    )
    assert cosines["mine", "mean-difference by hand"] == pytest.approx(mine.at(0)[0] / np.linalg.norm(mine.at(0)))
    assert found.at_layer().set_index("finder").loc["nothing", "null"]


def test_a_finder_name_does_not_make_a_classifier():
    found = compared(finders=["mean-difference"], others={"logistic": direction(0), "same": direction(0)})
    assert found.cosines.table.set_index(["first", "second"])["cosine"]["logistic", "same"] == pytest.approx(1.0)
