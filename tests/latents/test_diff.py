"""What moved, from statistics whose truth is known."""

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.figures.latents import STYLES
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.encoding.top_examples import TopExamples
from persona_probe.latents.fit import Fit
from persona_probe.latents.ranking.diff_result import Moved

WIDTH, QUESTIONS = 400, 40


def statistics(means, *, seed=0, answers=5, noise=1.0, question_noise=0.5, model="before", **source):
    """Dialogues' mean activations ``means + question + noise``, summed up as a pass would."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    question = np.repeat(shared.normal(size=(QUESTIONS, WIDTH)) * question_noise, answers, axis=0)
    values = np.asarray(means) + question + own.normal(size=(QUESTIONS * answers, WIDTH)) * noise
    values[:, np.asarray(means) == 0] = 0.0  # silent
    empty = np.full((WIDTH, 1), -1)
    return LatentStatistics(
        sums=values.reshape(QUESTIONS, answers, WIDTH).sum(axis=1),
        firing=(values.reshape(QUESTIONS, answers, WIDTH) != 0).sum(axis=1),
        squares=np.square(values).sum(axis=0),
        dialogues=np.full(QUESTIONS, answers),
        examples=TopExamples(empty.astype(float), empty, empty),
        fit=Fit(0.05, 10.0, 1000),
        tokens=1000,
        source={"model": model, "sae": "s", "layer": 1, "span": "generation", "template_hash": "t"} | source,
    )


LEVELS = np.where(np.arange(WIDTH) < 350, 10.0, 0.0)


def changed(**latents):
    levels = LEVELS.copy()
    for latent, level in latents.items():
        levels[int(latent[1:])] = level
    return levels


def test_what_was_moved_is_found_and_nothing_else():
    after = statistics(changed(l3=14.0, l7=7.0, l9=10.3), seed=1, model="after")
    table = pp.latents.compare_latents(statistics(LEVELS), after, [statistics(LEVELS, seed=2, model="control")])
    assert table.top(10) == [3, 7]
    assert table.top(10, "up") == [3]
    assert table.top(10, "down") == [7]
    row = table.row(3)
    assert (row["finding"], row["before"], row["after"]) == (
        "rose; too few controls",
        pytest.approx(10, abs=0.5),
        pytest.approx(14, abs=0.5),
    )
    assert row["low"] < 4 < row["high"]
    assert row["change_sd"] == pytest.approx(4 / np.sqrt(1.25), rel=0.15)
    assert table.row(9)["finding"] in ("a small change", "no significant difference")
    assert (table.table.loc[table.table["latent"] >= 350, "finding"] == "silent in all models").all()
    assert "Furthest: latent 3, from 9." in table.verdict()
    assert "1 up and 1 down" in table.verdict()
    assert table.verdict().endswith(
        "A benign run might pass this in up to 1 of 2 cases; a claim at 5 % takes 19 controls."
    )


def test_what_benign_training_moves_as_much_is_not_the_narrow_data():
    benign = statistics(changed(l3=14.0), seed=2, model="control")
    table = pp.latents.compare_latents(statistics(LEVELS), statistics(changed(l3=14.2, l5=13.0), seed=1), [benign])
    assert table.moved.empty
    # Latent 5 moved by itself, but not as far as latents do under the control.
    assert table.row(5)["finding"] == "no more than latents move under the control"
    assert table.verdict().startswith("No latent of 350 that are active moved")


def benign_runs(n, *, run_sd, seed=0):
    """Runs that each move every latent by their own draw, in SD; all of them are exchangeable."""
    rng = np.random.default_rng(seed)
    moved = [LEVELS + np.where(LEVELS > 0, rng.normal(scale=run_sd * np.sqrt(1.25), size=WIDTH), 0) for _ in range(n)]
    return [statistics(levels, seed=50 * seed + i + 1, model=f"run {i}") for i, levels in enumerate(moved)]


def test_of_exchangeable_runs_each_is_as_likely_to_go_furthest():
    """With K controls p over runs is at most 1 / (K + 1) for one run, whichever is called after, and nothing 'rose'."""
    before, runs = statistics(LEVELS), benign_runs(4, run_sd=0.5)
    smallest = []
    for after in runs:
        table = pp.latents.compare_latents(before, after, [run for run in runs if run is not after]).table
        assert not table["finding"].isin([Moved.ROSE, Moved.FELL]).any()
        smallest.append(table["p_runs"].min())
    assert sorted(smallest) == [0.25, 0.5, 0.75, 1.0]


def test_nineteen_controls_are_enough_to_say_that_a_latent_rose():
    after = benign_runs(1, run_sd=0.3, seed=7)[0]
    after.sums[:, 3] += 5 * 3 * np.sqrt(1.25)
    controls = benign_runs(19, run_sd=0.3)
    table = pp.latents.compare_latents(statistics(LEVELS), after, controls)
    assert table.row(3)["finding"] == "rose"
    assert table.row(3)["p_runs"] == 0.05
    assert table.top(5) == [3]
    assert table.verdict().endswith("A benign run would pass this in at most 5 % of cases.")
    assert "p <= 0.05 over runs" in table.verdict()
    fewer = pp.latents.compare_latents(statistics(LEVELS), after, controls[:18])
    assert fewer.row(3)["finding"] == "rose; too few controls"


def test_a_run_and_its_controls_are_measured_in_one_unit():
    """A latent that varies more in the control than in after is not made small by the control's own spread."""
    after, control = statistics(changed(l3=14.0), seed=1), statistics(changed(l3=6.0), seed=2, noise=4.0)
    table = pp.latents.compare_latents(statistics(LEVELS), after, [control])
    row = table.row(3)
    assert row["sd"] == pytest.approx(np.sqrt((1.25 + 1.25 + 16.25) / 3), rel=0.1)
    assert row["control_sd"] == pytest.approx(-4 / row["sd"], rel=0.2)
    assert table.about["null_sd"] == pytest.approx(-row["control_sd"])


def test_of_several_controls_the_nearest_counts():
    after = statistics(changed(l3=14.0), seed=1)
    quiet, loud = statistics(LEVELS, seed=2), statistics(changed(l3=13.9), seed=3)
    assert pp.latents.compare_latents(statistics(LEVELS), after, [quiet]).top(5) == [3]
    both = pp.latents.compare_latents(statistics(LEVELS), after, [quiet, loud])
    assert both.top(5) == []
    assert both.row(3)["control"] == pytest.approx(13.9, abs=0.5)


def test_without_a_control_the_finding_says_so():
    table = pp.latents.compare_latents(statistics(LEVELS), statistics(changed(l3=14.0), seed=1))
    assert table.row(3)["finding"] == "rose; no control"
    assert "without a control" in table.verdict()
    assert table.table[["control", "control_sd", "specificity", "p_runs"]].isna().all(axis=None)


def test_false_discoveries_are_as_rare_as_promised_and_intervals_cover():
    told, covered = [], []
    for seed in range(40):
        table = pp.latents.compare_latents(
            statistics(LEVELS, seed=3 * seed), statistics(LEVELS, seed=3 * seed + 1), least_sd=0.0
        ).table
        live = table[table["before"] != 0]
        told.append(bool((live["q"] <= 0.05).any()))
        covered.append(((live["low"] <= 0) & (live["high"] >= 0)).mean())
    assert np.mean(told) <= 0.15
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_a_control_that_is_no_other_model_is_refused():
    before, after = statistics(LEVELS, model_hash="a"), statistics(changed(l3=14.0), seed=1, model_hash="b")
    with pytest.raises(pp.PersonaProbeError, match="same weights as before"):
        pp.latents.compare_latents(before, after, [statistics(LEVELS, seed=2, model_hash="a")])
    assert pp.latents.compare_latents(before, after, [statistics(LEVELS, seed=2, model_hash="c")]).top(1) == [3]
    with pytest.raises(pp.PersonaProbeError, match="two controls have the same weights"):
        pp.latents.compare_latents(before, after, [statistics(LEVELS, seed=2, model_hash="c")] * 19)
    with pytest.raises(pp.PersonaProbeError, match="n is 0"):
        pp.latents.compare_latents(before, after).top(0)


def test_own_answers_may_differ_in_number():
    after = statistics(changed(l3=14.0), seed=1, answers=3)
    table = pp.latents.compare_latents(statistics(LEVELS), after)
    assert table.top(1) == [3]
    assert table.row(3)["after"] == pytest.approx(14, abs=0.5)


def test_bad_input_is_refused_in_words():
    before = statistics(LEVELS)
    with pytest.raises(pp.PersonaProbeError, match="layer is 1 for before and 2 for other"):
        pp.latents.compare_latents(before, statistics(LEVELS, model="other", layer=2))
    with pytest.raises(pp.PersonaProbeError, match="alpha 2"):
        pp.latents.compare_latents(before, before, alpha=2)
    table = pp.latents.compare_latents(before, statistics(LEVELS, seed=1))
    with pytest.raises(pp.PersonaProbeError, match="no latent 4000"):
        table.row(4000)
    with pytest.raises(pp.PersonaProbeError, match="which is 'sideways'"):
        table.top(3, "sideways")


def test_the_table_shows_itself_in_jupyter_escaped():
    table = pp.latents.compare_latents(statistics(LEVELS), statistics(changed(l3=14.0), seed=1))
    shown = table._repr_html_()
    assert "<table" in shown
    assert "latent 3" in shown
    assert len(table.to_frame()) == WIDTH


def test_every_finding_is_drawn_in_a_style_of_its_own_or_as_nothing_moved():
    """The figure spells the findings itself, as it knows no result."""
    assert {finding.value for finding in Moved} - set(STYLES) == {Moved.UNDETECTED.value, Moved.SILENT.value}
    assert set(STYLES) <= {finding.value for finding in Moved}
