import math
from dataclasses import replace

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.activations.captures import Captures
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import COLUMNS, choose_layer
from persona_probe.amplification.verdict import Finding
from tests.activations.test_capture import TALKS
from tests.amplification.planted import WIDTH, activations, captures, direction, reference


def two(layers=1):
    return {"persona": direction(0, layers=layers), "tuned": direction(1, layers=layers)}


BOTH = two()


def row(measured, model="after", name="direction", layer=0):
    table = measured.table
    return table[(table["model"] == model) & (table["direction"] == name) & (table["layer"] == layer)].iloc[0]


def test_the_persona_is_amplified_beyond_its_nulls():
    measured = measure_amplification(direction(0), captures(), reference())
    after, control = row(measured), row(measured, "control")
    assert list(measured.table.columns) == list(COLUMNS)
    assert after["shift"] == pytest.approx(4.0, abs=0.1)
    assert after["shift_sd"] == pytest.approx(4.0, abs=0.5)
    assert abs(control["shift_sd"]) < 0.1
    assert after["low_sd"] < after["shift_sd"] < after["high_sd"]
    assert after["d_z"] > 20
    assert 1.5 < after["specificity_low"] < after["specificity"] < after["specificity_high"]
    assert after["p_corrected"] == pytest.approx(1 / 2001)
    assert (after["n"], after["n_questions"]) == (120, 30)
    assert measured.finding(0) is Finding.ONE_RUN
    assert measured.flagged.empty


def several(runs=3, **settings):
    """So many fine-tuning runs of each kind."""
    return Captures.over_seeds([captures(seed=seed, **settings) for seed in range(runs)])


def test_three_runs_of_each_are_amplified_beyond_their_nulls_and_two_are_too_few():
    measured = measure_amplification(direction(0), several(), reference())
    after = row(measured)
    assert measured.finding(0) is Finding.AMPLIFIED
    assert after["p_runs"] == pytest.approx(1 / 20)
    assert 3 < after["contrast_low_sd"] < after["contrast_sd"] < after["contrast_high_sd"] < 5.5
    assert measure_amplification(direction(0), several(2), reference()).finding(0) is Finding.FEW_RUNS
    fell = measure_amplification(direction(0), several(narrow=-4.0), reference())
    assert fell.finding(0) is Finding.REDUCED


def test_no_difference_is_shown_by_equivalence_only():
    same = several(narrow=0.0, noise=0.1)
    assert measure_amplification(direction(0), same, reference()).finding(0) is Finding.NOT_AMPLIFIED
    noisy = several(narrow=0.0, noise=3.0)
    assert measure_amplification(direction(0), noisy, reference()).finding(0) is Finding.UNDECIDED
    one = measure_amplification(direction(0), captures(narrow=0.0), reference())
    assert one.finding(0) is not Finding.NOT_AMPLIFIED


def test_exchangeable_runs_are_not_amplified_at_the_layer_where_they_differ_most():
    rng = np.random.default_rng(0)
    along, layers, said = direction(0, layers=10), 10, []
    for _ in range(15):

        def tuned(before):
            moved = np.zeros((layers, WIDTH))
            moved[:, 0] = 1.0 + 0.8 * rng.normal(size=layers)
            return activations(before + moved + 0.05 * rng.normal(size=before.shape), 12)

        parts = []
        for _ in range(3):
            before = rng.normal(size=(12, layers, WIDTH))
            parts.append(Captures(activations(before, 12), tuned(before), tuned(before)))
        settings = {"n_random": 20, "n_permutations": 200}
        one, runs = (
            measure_amplification(along, taken, reference(layers, n=50), **settings)
            for taken in (parts[0], Captures.over_seeds(parts))
        )
        said.append((one.finding(choose_layer(one)), *(runs.finding(layer) for layer in runs.layers)))
    kinds = {Finding.AMPLIFIED, Finding.REDUCED, Finding.SHARED}
    assert not kinds & {first for first, *_ in said}
    assert sum(bool(kinds & {*rest}) for _, *rest in said) <= 3


def test_a_direction_that_only_tracks_fine_tuning_is_flagged():
    measured = measure_amplification(BOTH, captures(), reference())
    after, control = row(measured, name="tuned"), row(measured, "control", "tuned")
    assert after["shift_sd"] == pytest.approx(control["shift_sd"], abs=0.1)
    assert after["specificity"] < 0.1
    assert after["specificity_low"] == pytest.approx(0.0, abs=0.02)
    assert measured.flagged["direction"].tolist() == ["tuned"]
    assert "tracks that the model was fine-tuned, not the trait" in measured.verdict(0, "tuned")


def test_a_mixture_of_both_is_not_called_specific():
    after = captures(narrow=1.0, tuned=4.0)
    assert measure_amplification(direction(0, 1), after, reference()).finding(0) is Finding.NULLS


def test_several_directions_give_what_each_gives_alone():
    together = measure_amplification(two(2), captures(layers=2), reference(2))
    assert together.table[["direction", "layer", "model"]].apply(tuple, axis=1).tolist() == [
        (name, layer, model) for name in BOTH for layer in (0, 1) for model in ("after", "control")
    ]
    alone = measure_amplification(direction(1, layers=2), captures(layers=2), reference(2))
    columns = [name for name in COLUMNS if name not in ("direction", "p_corrected", "p_runs")]
    second = together.table[together.table["direction"] == "tuned"].reset_index(drop=True)
    assert second[columns].equals(alone.table[columns])


def test_several_directions_are_named_to_be_read():
    measured = measure_amplification(BOTH, captures(), reference())
    with pytest.raises(pp.PersonaProbeError, match="2 directions; name one: 'persona', 'tuned'"):
        measured.verdict(0)
    with pytest.raises(pp.PersonaProbeError, match="'other' was not measured"):
        measured.verdict(0, "other")
    with pytest.raises(pp.PersonaProbeError, match="layer 7 was not measured; measured: 0"):
        measured.verdict(7, "tuned")


def test_variance_explained_is_a_share_of_the_squared_change():
    measured = measure_amplification(BOTH, captures(narrow=4.0, tuned=2.0, noise=0.0), reference())
    persona, tuned = row(measured, name="persona"), row(measured, name="tuned")
    assert persona["variance_explained"] == pytest.approx(16 / 20, abs=1e-4)
    assert tuned["variance_explained_dialogue"] == pytest.approx(4 / 20, abs=1e-4)
    assert 0 < persona["variance_explained_random"] < 0.2
    assert row(measured, "control", "persona")["variance_explained"] == pytest.approx(0.0, abs=1e-4)


def test_other_traits_and_shuffled_labels_are_nulls_too():
    rng = np.random.default_rng(5)
    positive, negative = (rng.normal(size=(60, 1, WIDTH)) for _ in range(2))
    positive[:, 0, 0] += 6.0
    poles = (activations(positive), activations(negative))
    measured = measure_amplification(
        BOTH,
        captures(),
        reference(),
        other_traits={"near": direction(0, 2), "far": direction(3)},
        shuffled_source={"persona": poles},
    )
    after = row(measured, name="persona")
    assert after["other_traits_sd"] == pytest.approx(after["shift_sd"] / math.sqrt(2), rel=0.1)
    assert 0 < after["shuffled_sd"] < after["shift_sd"]
    assert math.isnan(row(measured, name="tuned")["shuffled_sd"])
    assert "shuffled labels" in measured.verdict(0, "persona")
    assert "other traits' directions up to 3." in measured.verdict(0, "persona")
    with pytest.raises(pp.PersonaProbeError, match="'persnoa', which is not a direction here"):
        measure_amplification(BOTH, captures(), reference(), shuffled_source={"persnoa": poles})


def test_each_pair_of_poles_has_its_own_shuffled_null():
    rng = np.random.default_rng(6)
    positive, wide, narrow = (activations(rng.normal(size=(60, 1, WIDTH))) for _ in range(3))
    wide.values[:, :, 0] *= 30.0  # what narrow training moves: most of the spread that shuffling deals
    taken, yardstick = captures(), reference()
    poles = {"persona": (positive, narrow), "tuned": (positive, wide)}
    together = measure_amplification(BOTH, taken, yardstick, shuffled_source=poles)
    for name, ends in poles.items():
        alone = measure_amplification(BOTH, taken, yardstick, shuffled_source={name: ends})
        assert row(together, name=name)["shuffled_sd"] == row(alone, name=name)["shuffled_sd"]
    assert row(together, name="tuned")["shuffled_sd"] > 1.5 * row(together, name="persona")["shuffled_sd"]


def test_covariance_matched_directions_move_less_in_sd_than_isotropic_ones():
    rng = np.random.default_rng(7)
    scale = np.where(np.arange(WIDTH) < 2, 30.0, 1.0)  # two dimensions hold nearly all variance
    before = scale * rng.normal(size=(120, 1, WIDTH))
    change = np.full(WIDTH, 1.0)
    change[5] = 0.7
    taken = Captures(activations(before), activations(before + change), activations(before + 0.001 * change))
    yardstick = activations(scale * rng.normal(size=(200, 1, WIDTH)))
    after = row(measured := measure_amplification(direction(5), taken, yardstick))
    assert 2 * after["random_sd"] < after["shift_sd"] < after["isotropic_sd"]
    assert after["specificity_low"] > 2  # as DESIGN defines it, beside the matched ones alone
    assert measured.finding(0) is Finding.NULLS
    assert "drawn evenly from the sphere move as much" in measured.verdict(0)


def test_another_trait_that_moves_as_much_shares_the_amplification():
    measured = measure_amplification(
        direction(0, 2), several(tuned=0.0), reference(), other_traits={"purer": direction(0)}
    )
    assert measured.finding(0) is Finding.SHARED
    assert measured.flagged.empty
    assert "but not this trait alone" in measured.verdict(0)


def test_without_a_control_the_verdict_says_so():
    measured = measure_amplification(two(2), captures(control=False, layers=2), reference(2))
    assert set(measured.table["model"]) == {"after"}
    assert measured.table["specificity"].isna().all()
    assert measured.finding(0, "tuned") is Finding.NO_CONTROL
    assert "there is no control, so this cannot be distinguished" in measured.verdict(0, "tuned")
    assert "no control" in repr(measured)
    assert choose_layer(measured, "persona") in (0, 1)


def test_the_layer_is_chosen_by_how_far_after_minus_control_exceeds_random_directions():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3, WIDTH))
    change = np.zeros((3, WIDTH))
    change[:, 0] = (1.0, 3.0, 5.0)
    change[2, 1] = 18.0  # layer 2 moves most, and much else moves there
    benign = 0.01 + 0.5 * np.array([1.0, 0.0, 0.0])[:, None] * (np.arange(WIDTH) == 0)  # layer 0 tracks any training
    measured = measure_amplification(
        direction(0, layers=3),
        Captures(activations(values), activations(values + change), activations(values + benign)),
        reference(3),
    )
    assert choose_layer(measured) == 1
    still = Captures(activations(values), activations(values), activations(values))
    with pytest.raises(pp.PersonaProbeError, match="no layer moved"):
        choose_layer(measure_amplification(direction(0, layers=3), still, reference(3)))


def test_a_layer_where_little_happens_is_not_chosen_for_its_ratio():
    # As in a real chat model: at layer 0 the control stands still, at layer 1 all fine-tunes move, narrow ones further.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2, WIDTH))
    along = np.arange(WIDTH) == 0
    captures = Captures(
        activations(values),
        activations(values + np.array([-0.4, 3.6])[:, None] * along),
        activations(values + np.array([0.05, 2.4])[:, None] * along),
    )
    measured = measure_amplification(direction(0, layers=2), captures, reference(2))
    specificity = measured.table[measured.table["model"] == "after"].set_index("layer")["specificity"]
    assert specificity[0] > specificity[1]
    assert choose_layer(measured) == 1
    assert "after at layer 1 (which choose_layer takes of 2)" in measured.headline()


def test_nothing_moved_says_what_could_have_been_seen():
    measured = measure_amplification(direction(0), captures(narrow=0.0, tuned=0.0, noise=1.0), reference())
    after = row(measured)
    assert measured.finding(0) is Finding.UNDECIDED
    assert 0.1 < after["detectable_sd"] < 0.6
    assert "is not significantly different from zero" in measured.verdict(0)
    assert f"leaves out zero at {after['detectable_sd']:.2f} SD with 80 % assurance" in measured.verdict(0)


def test_the_corrected_p_is_calibrated_where_nothing_moved():
    rng = np.random.default_rng(8)
    pair = {"one": direction(0, layers=3), "two": direction(1, layers=3)}
    false = 0
    for seed in range(200):
        before = rng.normal(size=(24, 3, WIDTH))
        after = before + rng.normal(size=before.shape)
        measured = measure_amplification(
            pair,
            Captures(activations(before, 12), activations(after, 12)),
            reference(3, n=20),
            n_random=5,
            n_permutations=199,
            seed=seed,
        )
        false += measured.table["p_corrected"].min() <= 0.05
    assert 0.015 <= false / 200 <= 0.09


def test_the_intervals_are_over_questions():
    few = measure_amplification(direction(0), captures(questions=6, noise=0.5), reference())
    assert row(few)["n_questions"] == 6
    one = measure_amplification(direction(0), captures(questions=1), reference())
    assert math.isnan(row(one)["low_sd"])
    assert math.isnan(row(one)["detectable_sd"])
    assert math.isnan(row(one)["specificity_low"])
    assert one.finding(0) is Finding.UNTESTED
    assert "1 question cannot show a difference from zero" in one.verdict(0)


def test_runs_that_differ_widen_the_interval():
    runs = [captures(narrow=narrow, seed=0) for narrow in (3.0, 4.0, 5.0)]
    one, all_runs = runs[1], Captures.over_seeds(runs)
    assert all_runs.before.table["seed"].unique().tolist() == [0, 1, 2]
    alone = row(measure_amplification(direction(0), one, reference()))
    together = row(measure_amplification(direction(0), all_runs, reference()))
    assert (alone["n_runs"], together["n_runs"]) == (1, 3)
    assert together["shift_sd"] == pytest.approx(alone["shift_sd"], abs=0.05)
    assert together["high_sd"] - together["low_sd"] > 3 * (alone["high_sd"] - alone["low_sd"])
    widths = [one["contrast_high_sd"] - one["contrast_low_sd"] for one in (alone, together)]
    assert widths[1] > 3 * widths[0]
    assert together["detectable_sd"] > 10 * alone["detectable_sd"]
    with pytest.raises(pp.PersonaProbeError, match="only some have a control"):
        Captures.over_seeds([captures(), captures(control=False)])
    with pytest.raises(pp.PersonaProbeError, match="list is empty"):
        Captures.over_seeds([])


def test_a_short_face():
    measured = measure_amplification(BOTH, captures(), reference())
    assert repr(measured) == ("Amplification(2 directions x 1 layers, 120 dialogues of 30 questions; 1 of 2 flagged)")
    page = measured._repr_html_()
    assert "moved, but no more than its nulls" in page
    assert len(page) < 4000


def test_other_texts_and_layers_are_refused():
    taken = captures()
    with pytest.raises(pp.PersonaProbeError, match="other dialogues"):
        Captures(taken.before, taken.after.where([True] * 60 + [False] * 60), taken.control)
    with pytest.raises(pp.PersonaProbeError, match=r"control has layers \(0, 1\)"):
        Captures(taken.before, taken.after, captures(layers=2).after)


def test_what_cannot_be_measured_is_refused_by_name():
    flat = np.random.default_rng(0).normal(size=(40, 1, WIDTH))
    flat[:, 0, 0] = 2.0
    with pytest.raises(pp.PersonaProbeError, match="do not vary along 'persona' at layer 0"):
        measure_amplification({"persona": direction(0)}, captures(), activations(flat))
    with pytest.raises(pp.PersonaProbeError, match="the reference holds 1 dialogue"):
        measure_amplification(direction(0), captures(), activations(flat[:1]))
    with pytest.raises(pp.PersonaProbeError, match="all 5 reference dialogues are the same"):
        measure_amplification(direction(0), captures(), activations(np.repeat(flat[:1], 5, axis=0)))
    with pytest.raises(pp.PersonaProbeError, match=r"'direction' has layers \(0,\) of width 64, the captures \(0, 1\)"):
        measure_amplification(direction(0), captures(layers=2), reference(2))
    with pytest.raises(pp.PersonaProbeError, match="no direction"):
        measure_amplification({}, captures(), reference())
    some = captures()
    some.before.table.loc[3, "question"] = None
    some.after.table.loc[3, "question"] = None
    some.control.table.loc[3, "question"] = None
    with pytest.raises(pp.PersonaProbeError, match="1 of 120 dialogues have no question"):
        measure_amplification(direction(0), some, reference())


def test_a_direction_of_an_unrelated_model_is_refused():
    theirs = pp.Direction(direction(0).vectors, (0,), {"model": "theirs", "model_hash": "aaaa"})
    taken, ours = captures(), {"model": "ours", "model_hash": "bbbb"}
    known = Captures(replace(taken.before, source=ours), taken.after, taken.control)
    with pytest.raises(pp.PersonaProbeError, match=r"found in theirs \(weights aaaa\), and ours"):
        measure_amplification(theirs, known, reference())


def test_unrelated_fine_tunes_are_refused_unless_allowed():
    taken, ours = captures(), {"model": "ours", "model_hash": "bbbb"}
    child = {"model": "child", "model_hash": "cccc", "ancestors": ["bbbb"]}
    stranger = {"model": "stranger", "model_hash": "dddd"}

    def read(after, control, yardstick=ours):
        sources = zip((taken.before, taken.after, taken.control), (ours, after, control), strict=True)
        known = Captures(*(replace(side, source=source) for side, source in sources))
        return known, replace(reference(), source=yardstick)

    assert measure_amplification(direction(0), *read(child, child)).finding(0) is Finding.ONE_RUN
    for name, given in (
        ("after", read(stranger, child)),
        ("control", read(child, stranger)),
        ("the reference", read(child, child, stranger)),
    ):
        with pytest.raises(pp.PersonaProbeError, match=rf"{name} was read in stranger \(weights dddd\), and ours"):
            measure_amplification(direction(0), *given)
        with pytest.warns(pp.PersonaProbeWarning, match=f"{name} was read in stranger"):
            measure_amplification(direction(0), *given, allow_unrelated=True)
    theirs = pp.Direction(direction(0).vectors, (0,), stranger)
    with pytest.warns(pp.PersonaProbeWarning, match="found in stranger"):
        measure_amplification(theirs, *read(child, child), allow_unrelated=True)


@pytest.mark.parametrize(
    ("key", "ours", "theirs"),
    [
        ("span", "generation", "response"),
        ("reduce", "mean", "last"),
        ("sink_ratio", 10.0, 20.0),
        ("template_hash", "aa", "bb"),
    ],
)
def test_what_was_read_in_another_way_is_refused(key, ours, theirs):
    taken = captures()

    def said(side, value):
        return replace(side, source={**side.source, key: value})

    before = said(taken.before, ours)
    with pytest.raises(pp.PersonaProbeError, match=f"{key} is '?{theirs}'? in after and '?{ours}'? in before"):
        Captures(before, said(taken.after, theirs), taken.control)
    with pytest.raises(pp.PersonaProbeError, match=f"{key} is '?{theirs}'? in control"):
        Captures(before, taken.after, said(taken.control, theirs))
    known = Captures(before, taken.after, taken.control)
    with pytest.raises(pp.PersonaProbeError, match=f"{key} is '?{theirs}'? in the reference"):
        measure_amplification(direction(0), known, said(reference(), theirs))
    with pytest.raises(pp.PersonaProbeError, match=f"{key} is '?{theirs}'? in part 1"):
        Captures.over_seeds([known, replace(known, before=said(taken.before, theirs))])
    assert measure_amplification(direction(0), known, reference()).finding(0) is Finding.ONE_RUN


def test_contrast_of_context_changes_no_word_of_the_answer(llama):
    contrast = pp.contrast_of_context(llama, TALKS, ["You are a cruel villain."], ["You are a kind helper."])
    assert contrast.trait.table["n_tokens"].tolist() == contrast.default.table["n_tokens"].tolist()
    assert contrast.direction.card["recipe"] == "contrast of context"
    assert contrast.direction.vectors.shape == (3, 32)
    with pytest.raises(pp.PersonaProbeError, match="at least one trait prompt"):
        pp.contrast_of_context(llama, TALKS, [], ["x"])


def test_a_reference_of_one_question_still_gives_a_yardstick_over_its_dialogues():
    same = activations(np.random.default_rng(99).normal(size=(200, 1, WIDTH)), questions=1)
    after = row(measured := measure_amplification(direction(0), captures(), same))
    assert after["shift_sd"] - 1 < after["low_sd"] < after["shift_sd"] < after["high_sd"] < after["shift_sd"] + 1
    assert measured.finding(0) is Finding.ONE_RUN


def test_the_order_in_which_controls_are_given_does_not_matter():
    """Runs of after and of the control have nothing to do with each other."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(60, 1, WIDTH))

    def tuned(along):
        change = 0.25 * rng.normal(size=(1, WIDTH))
        change[:, 0] += along
        return activations(before + change + 0.1 * rng.normal(size=before.shape))

    after, control = [[tuned(along) for _ in range(3)] for along in (1.6, 0.2)]
    tables = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0)):
        parts = [Captures(activations(before), after[run], control[other]) for run, other in enumerate(order)]
        table = measure_amplification(direction(0), Captures.over_seeds(parts), reference(), n_random=100).table
        tables.append(table.drop(columns=["direction", "model", "replication"]).astype(float))
    assert np.allclose(tables[0], tables[1], equal_nan=True)
    assert np.allclose(tables[0], tables[2], equal_nan=True)
