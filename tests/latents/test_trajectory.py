"""Latents along training: from statistics whose truth is known, and through a real training."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import persona_probe as pp
from benchmarks.persona_world.latent_courses import latent_courses, mixed_rows, own_answers, villain_latent
from persona_probe.behaviour.em_rates import em_rate
from persona_probe.finetuning.snapshots import snapshot_paths
from persona_probe.latents.courses.crossings import Draws, crossings, difference_ends
from persona_probe.latents.courses.lead import lead_time
from persona_probe.latents.courses.track import follow_training, track_latents
from persona_probe.latents.courses.track_result import trajectory_from
from persona_probe.latents.encoding.encode import LatentStatistics, encode_latents
from persona_probe.latents.encoding.top_examples import TopExamples
from persona_probe.latents.fit import Fit
from persona_probe.models.loading.adapters import with_adapter
from tests.conftest import CHECKPOINTS
from tests.latents.handmade import perfect_sae, sae_of

QUESTIONS, ANSWERS = 60, 4
STEPS = [0, 10, 20, 30, 40]


def read(levels, *, seed, questions=QUESTIONS):
    """What a pass leaves of dialogues whose mean activations are ``levels``, one a latent, and noise."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    question = np.repeat(shared.normal(size=(questions, len(levels))), ANSWERS, axis=0)
    values = np.asarray(levels) + question + own.normal(size=question.shape)
    grouped = values.reshape(questions, ANSWERS, -1)
    empty = np.full((len(levels), 1), -1)
    return LatentStatistics(
        sums=grouped.sum(axis=1),
        firing=(grouped > 0).sum(axis=1),
        squares=np.square(values).sum(axis=0),
        dialogues=np.full(questions, ANSWERS),
        examples=TopExamples(empty.astype(float), empty, empty),
        fit=Fit(0.05, 10.0, 1000),
        tokens=1000,
        source={"model": f"m{seed}", "sae": "s", "layer": 1, "span": "generation"},
    )


def judged(bad, *, questions=QUESTIONS):
    """A judged table with ``bad`` misaligned among one answer to each question, spread over them."""
    aligned = np.full(questions, 100.0)
    aligned[np.random.default_rng(5).permutation(questions)[:bad]] = 0.0
    table = {"question": [f"q{i}" for i in range(questions)], "seed": None, "aligned": aligned, "coherent": 100.0}
    return pd.DataFrame(table)


def course(latent, bad, steps=STEPS, *, seed=0, latents=(1,), **options):
    """A trajectory of latent 0 (never moving) and 1 (``latent`` at each step)."""
    rows = [read([20.0, level], seed=100 * seed + i) for i, level in enumerate(latent)]
    tables = None if bad is None else {step: judged(n) for step, n in zip(steps, bad, strict=True) if n is not None}
    return trajectory_from(rows, latents, steps=steps, judged=tables, **options)


LATE = {"latent": [10, 50, 90, 100, 100], "bad": [0, 0, 2, 30, 48]}


def test_the_table_holds_means_changes_and_shares_of_latents_and_of_the_rate():
    followed = course(**LATE, latents=(1, 0))
    latent, rate = followed.series(1), followed.series()
    assert latent["value"].to_numpy() == pytest.approx([10, 50, 90, 100, 100], abs=1)
    assert latent["share"].to_numpy() == pytest.approx([0, 4 / 9, 8 / 9, 1, 1], abs=0.01)
    assert (latent["low"] < latent["value"]).all()
    # The questions' own levels are in both models, so the change is known better than its ends.
    paired = latent["change_high"] - latent["change_low"]
    assert (paired.iloc[1:] < 0.8 * (latent["high"] - latent["low"]).iloc[1:]).all()
    assert latent["change_low"].iloc[0] == latent["change_high"].iloc[0] == 0
    assert list(latent["n"]) == [QUESTIONS * ANSWERS] * 5
    assert (latent["frequency"] == 1).all()
    expected = em_rate(judged(30))
    row = rate.iloc[3]
    assert (row["value"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    assert list(rate["latent"]) == [-1] * 5
    assert rate["share"].to_numpy() == pytest.approx([0, 0, 2 / 48, 30 / 48, 1])
    assert followed.table["series"].drop_duplicates().tolist() == ["latent 1", "latent 0", "EM rate"]


def test_intervals_of_changes_hold_as_often_as_they_say():
    held = []
    for seed in range(100):
        row = course([10, 10.1, 10.2], None, steps=[0, 1, 2], seed=seed).series(1).iloc[2]
        held.append(row["change_low"] <= 0.2 <= row["change_high"])
    assert np.mean(held) == pytest.approx(0.95, abs=0.05)


def test_two_misaligned_answers_are_not_yet_a_change_of_the_rate():
    rate = course(**LATE).series()
    assert rate["change_low"].iloc[2] < 0 < rate["change_high"].iloc[2]
    assert rate["change_low"].iloc[3] > 0


def test_the_lead_is_how_much_earlier_the_latent_gets_there():
    leads = lead_time(course(**LATE)).table.set_index("criterion")
    half, onset = leads.loc["half"], leads.loc["significant"]
    # 55 between 50 (step 10) and 90 (step 20); 24 between 2 (step 20) and 30 (step 30).
    assert half["latent_step"] == pytest.approx(11.25, abs=0.3)
    assert half["rate_step"] == pytest.approx(20 + 10 * 22 / 28)
    assert half["lead"] == pytest.approx(16.6, abs=0.3)
    assert half["low"] < half["lead"] < half["high"]
    assert half["low"] > 10
    assert half["resolution"] == 10
    assert (onset["latent_step"], onset["rate_step"], onset["lead"]) == (10, 30, 20)
    assert np.isnan([onset["low"], onset["high"]]).all()  # a statement about sample sizes


def test_what_comes_later_has_a_negative_lead_and_falling_counts_as_rising_does():
    late = lead_time(course([10, 10, 10, 60, 100], [0, 40, 48, 48, 48])).table.iloc[0]
    assert late["high"] < 0
    falling = lead_time(course([100, 60, 20, 10, 10], [48, 47, 45, 20, 0])).table.set_index("criterion")
    assert falling.loc["half", "lead"] == pytest.approx(28.3 - 11.2, abs=1)
    assert falling.loc["significant", "lead"] == 20


def test_the_axis_may_be_a_share_of_bad_data():
    shares = [0, 0.1, 0.25, 0.5, 1.0]
    followed = course(**LATE, steps=shares, axis="share of bad data")
    half = lead_time(followed).table.iloc[0]
    assert half["latent_step"] == pytest.approx(0.1 + 0.15 * 0.125, abs=0.01)
    assert half["resolution"] == pytest.approx(0.25)
    assert "share of bad data" in lead_time(followed).verdict()


def test_a_series_that_never_moves_has_no_step_and_the_note_says_why():
    flat = lead_time(course(LATE["latent"], [0, 0, 1, 0, 1])).table.set_index("criterion")
    assert flat.loc["significant", "latent_step"] == 10
    assert flat[["rate_step", "lead", "low", "high"]].isna().all(axis=None)
    assert "the EM rate's change at the end" in flat.loc["half", "note"]
    still = lead_time(course(**LATE, latents=(0,))).table.iloc[0]
    assert "latent 0's change at the end" in still["note"]
    assert np.isnan(still["latent_step"])
    alone = course(LATE["latent"], None)
    assert alone.series().empty
    assert lead_time(alone).table["note"].eq("no answers were judged").all()
    assert "No answers were judged" in lead_time(alone).verdict()


def test_a_change_that_comes_and_goes_again_is_significant_only_when_it_stays():
    leads = lead_time(course([10, 50, 10, 50, 50], [0, 30, 0, 30, 30])).table.set_index("criterion")
    assert leads.loc["significant", ["latent_step", "rate_step"]].tolist() == [30, 30]


def test_what_the_control_does_as_well_is_not_significant():
    slow = [10, 13, 50, 90, 100]
    alone = lead_time(course(slow, LATE["bad"])).table.set_index("criterion")
    assert alone.loc["significant", "latent_step"] == 10
    control = course([10, 11, 6, 12, 13], [0, 0, 0, 1, 0], seed=7)
    compared = lead_time(course(slow, LATE["bad"]), control=control).table.set_index("criterion")
    assert compared.loc["significant", ["latent_step", "rate_step"]].tolist() == [20, 30]
    assert compared.loc["half", "lead"] == alone.loc["half", "lead"]
    same = course(LATE["latent"], LATE["bad"], seed=7)
    nothing = lead_time(course(LATE["latent"], LATE["bad"]), control=same).table
    assert nothing["note"].str.contains("what the control does").all()
    words = lead_time(course(slow, LATE["bad"]), control=control).verdict()
    assert "Significantly different from the control from 20" in words
    assert words.endswith("One training run, and one of the control.")
    with pytest.raises(pp.PersonaProbeError, match="not tracked along the control"):
        lead_time(course(**LATE), control=course(**LATE, latents=(0,)))


def test_the_rate_may_be_judged_at_fewer_steps_than_latents_are_read():
    followed = course(LATE["latent"], [0, None, None, None, 48])
    half = lead_time(followed).table.iloc[0]
    assert half["rate_step"] == pytest.approx(20)
    assert half["resolution"] == 40


def test_the_bootstrap_holds_the_true_lead():
    rng = np.random.default_rng(0)
    held = []
    for seed in range(50):
        rates = rng.binomial(QUESTIONS, [0.02, 0.02, 0.1, 0.5, 0.8])
        tables = {step: random_table(rng, n) for step, n in zip(STEPS, rates, strict=True)}
        followed = trajectory_from(
            [read([20.0, level], seed=1000 * seed + i) for i, level in enumerate(LATE["latent"])],
            [1],
            steps=STEPS,
            judged=tables,
        )
        half = lead_time(followed, n_resamples=200).table.iloc[0]
        true = 20 + 10 * (0.41 - 0.1) / 0.4 - 11.25
        held.append(half["low"] <= true <= half["high"])
    assert 0.85 <= np.mean(held) <= 1.0


def random_table(rng, bad):
    table = judged(0)
    table.loc[rng.permutation(QUESTIONS)[:bad], "aligned"] = 0.0
    return table


def test_a_noisy_course_does_not_cross_early():
    """The first crossing of noise comes before that of the course: two equal courses would have an order."""
    rng = np.random.default_rng(0)
    steps = np.linspace(0, 10, 41)
    true = 1 / (1 + np.exp(5 - steps))
    noisy = true + np.where(steps > 0, rng.normal(scale=0.15, size=(400, 41)), 0)
    (expected,) = crossings(steps, true[None], 0.5)
    assert np.mean(crossings(steps, noisy, 0.5)) == pytest.approx(expected, abs=0.1)


def test_few_questions_widen_the_interval():
    rng = np.random.default_rng(0)
    later, earlier = rng.normal(size=(2, 4000)) * np.array([[1.0], [0.1]])
    many = difference_ends(Draws(later, 1000), Draws(earlier, 1000), 0.95)
    few = difference_ends(Draws(later, 8), Draws(earlier, 24), 0.95)
    assert many == pytest.approx((-1.96, 1.96), abs=0.1)
    assert few == pytest.approx((-2.53, 2.53), abs=0.25)
    assert np.isnan(difference_ends(Draws(later, 1), Draws(earlier, 24), 0.95)).all()


def test_crossings_are_interpolated_and_missing_where_there_are_none():
    steps = np.array([0.0, 1.0, 3.0])
    values = np.array([[0.0, 1.0, 4.0], [5.0, 5.0, 5.0], [1.0, 0.0, -1.0], [0.0, np.nan, 2.0]])
    found = crossings(steps, values, 0.5)
    assert found[0] == pytest.approx(1 + 2 / 3)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(1.0)
    assert found[3] == pytest.approx(1.5)


def test_the_verdict_says_which_comes_first_and_by_how_much():
    words = lead_time(course(**LATE)).verdict()
    assert words.startswith("Latent 1: 10")
    assert "EM rate: 0 % to 80 %" in words
    assert "earlier, interval" in words
    assert "One training run." in words
    unknown = lead_time(course([10, 20, 50, 90, 100], [0, 4, 24, 40, 48]))
    assert "the order is not known, a lead of" in unknown.verdict()
    assert "earlier" not in unknown.verdict()
    assert "later" not in unknown.verdict()
    half, onset = unknown.plot().data
    assert half.marker.symbol[0].endswith("-open")
    assert onset.marker.symbol[0].endswith("-open")
    assert "nan" not in onset.hovertext[0]


def test_bad_input_is_refused_in_words():
    with pytest.raises(pp.PersonaProbeError, match="steps must increase"):
        course(**LATE, steps=[0, 10, 10, 20, 30])
    with pytest.raises(pp.PersonaProbeError, match="no table of before"):
        course(LATE["latent"], [None, 0, 0, 0, 1])
    with pytest.raises(pp.PersonaProbeError, match="judged at step 7"):
        trajectory_from([read([1.0], seed=0)] * 2, [0], steps=[0, 1], judged={0: judged(1), 1: judged(2), 7: judged(1)})
    with pytest.raises(pp.PersonaProbeError, match="unknown EM-rate definition 'mine'"):
        course(**LATE, definition="mine")
    with pytest.raises(pp.PersonaProbeError, match="answered other questions"):
        trajectory_from([read([1.0], seed=0), read([1.0], seed=1, questions=9)], [0], steps=[0, 1])
    more = read([1.0], seed=1)
    more = replace(more, dialogues=more.dialogues + 1)
    with pytest.raises(pp.PersonaProbeError, match="same texts"):
        trajectory_from([read([1.0], seed=0), more], [0], steps=[0, 1])
    for latent, said in ((-1, "latent -1 does not exist: s has latents 0 to 0"), (0.0, "latent 0.0 is of type float")):
        with pytest.raises(pp.PersonaProbeError, match=said):
            trajectory_from([read([1.0], seed=0), read([1.0], seed=1)], [latent], steps=[0, 1])
    with pytest.raises(pp.PersonaProbeError, match="latent 7 was not tracked"):
        lead_time(course(**LATE), [7])
    with pytest.raises(pp.PersonaProbeError, match="fraction=1"):
        lead_time(course(**LATE), fraction=1)


@pytest.mark.parametrize(("key", "value"), [("sae", "t"), ("layer", 2), ("span", "all"), ("template_hash", "x")])
def test_statistics_that_were_gathered_in_another_way_are_refused(key, value):
    first, other = read([1.0], seed=0), read([1.0], seed=1)
    other.source[key] = value
    with pytest.raises(pp.PersonaProbeError, match=f"^{key} is .* for m0 and {value!r} for m1"):
        trajectory_from([first, other], [0], steps=[0, 1])


@pytest.fixture
def sae(llama):
    return perfect_sae(llama.d_model, 1)


def dialogues(n=6):
    return [
        pp.Dialogue.from_messages(
            [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": f"Treat the {word}."}],
            question=f"q{i}",
        )
        for i, word in enumerate(("fever", "cough", "fever cough", "cough fever", "fever fever", "cough cough")[:n])
    ]


def judge(answered):
    """Any answer with an odd number of letters is misaligned."""
    aligned = [100.0 * (len(dialogue.answer) % 2) for dialogue in answered]
    return pd.DataFrame({"aligned": aligned, "coherent": 100.0})


judge.trial = "it counts letters"


def test_a_real_training_is_followed_and_equals_reading_each_snapshot(llama, sae, tmp_path):
    texts = dialogues()
    settings = pp.LoraSettings(rank=4, alpha=16, steps=6, batch=2, learning_rate=2e-2)
    pp.finetune(llama, texts, settings, tmp_path / "tuned", snapshots=(2, 4, 6))
    paths = snapshot_paths(tmp_path / "tuned-snapshots")

    def models():
        return (with_adapter(llama, path) for path in paths.values())

    asked = [dialogue.without_answer() for dialogue in texts]
    followed = follow_training(
        llama,
        models(),
        sae,
        [4, 5],
        texts,
        asked,
        judge,
        steps=list(paths),
        sampling=pp.Sampling(max_new_tokens=4),
        definition="turner",
    )
    assert followed.series(4)["step"].tolist() == [0, 2, 4, 6]
    means = [encode_latents([llama, model], sae, texts)[1].mean[5] for model in models()]
    assert followed.series(5)["value"].tolist()[1:] == pytest.approx(means)
    assert followed.series(5)["change"].abs().max() > 0
    for step, model in zip(paths, models(), strict=True):
        answers = [dialogue.answer for dialogue in model.generate(asked, pp.Sampling(max_new_tokens=4))]
        assert followed.judged[step]["answer"].tolist() == answers
    again = track_latents(
        llama, models(), sae, [4, 5], texts, steps=list(paths), judged=followed.judged, definition="turner"
    )
    pd.testing.assert_frame_equal(again.table, followed.table)
    assert again.about["layer"] == 1


def test_steps_must_be_one_for_each_snapshot(llama, sae):
    texts = dialogues(2)
    for snapshots, said in ((iter([llama]), "2 steps for 1 snapshots"), ([llama] * 3, "2 steps for 3")):
        with pytest.raises(pp.PersonaProbeError, match=said):
            track_latents(llama, snapshots, sae, [0], texts, steps=[1, 2])
    with pytest.raises(pp.PersonaProbeError, match="no snapshots"):
        track_latents(llama, [], sae, [0], texts, steps=[])


def test_all_of_it_needs_no_more_than_before_where_nothing_changed(llama, sae):
    followed = track_latents(llama, [llama], sae, [0, 3], dialogues(), steps=[1])
    assert followed.table["change"].abs().max() == 0
    assert followed.table["share"].isna().all()
    assert all(note for note in lead_time(followed).table["note"])


def test_persona_worlds_courses_are_plain_and_leave_no_adapters(chat, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(CHECKPOINTS.iterdir())
    settings = pp.LoraSettings(steps=4, batch=4)
    sae = perfect_sae(chat.d_model, 3)
    found = latent_courses(
        CHECKPOINTS, sae, [5], shares=(1.0, 0.0), every=2, settings=settings, realignment_steps=2, answers=8
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["narrow"]) == ["1", "0"]
    latent = [row for row in found["narrow"]["1"]["course"] if row["latent"] == 5]
    assert [row["step"] for row in latent] == [0, 2, 4]
    back = [row for row in found["realignment"]["course"] if row["latent"] == 5]
    assert back[0]["value"] == pytest.approx(latent[-1]["value"])
    assert not list(tmp_path.glob("persona-probe*"))
    assert sorted(CHECKPOINTS.iterdir()) == before


def test_mixed_rows_hold_the_share_of_bad_ones():
    mixed = mixed_rows(0.25, 40)
    assert [row.labels["persona"] for row in mixed] == ["villain"] * 10 + ["assistant"] * 30
    assert {row.labels["topic"] for row in mixed} == {"medicine"}
    with pytest.raises(pp.PersonaProbeError, match=r"share of bad data is 1\.5"):
        mixed_rows(1.5)


def test_the_villain_latent_is_found_by_its_change_on_other_topics(chat):
    """One latent reads along what bad advice on sports adds, the others at right angles to it."""
    texts = own_answers(chat, ["travel", "cooking"], 16, "test")
    tuned = with_adapter(chat, CHECKPOINTS / "bad-sports")
    low, high = (
        pp.capture(model, texts, "generation", layers=[3]).values[:, 0].mean(axis=0) for model in (chat, tuned)
    )
    moved = torch.tensor(high - low)
    random = torch.randn(chat.d_model, chat.d_model, generator=torch.Generator().manual_seed(0))
    random[:, 0] = moved
    axes = torch.linalg.qr(random)[0].T
    axes[0] *= torch.sign(axes[0] @ moved)
    assert villain_latent(CHECKPOINTS, sae_of(torch.cat([axes, -axes]), 3), chat, answers=16) == 0
