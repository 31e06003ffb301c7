"""What directions and probes see in the shipped models; small samples, wide margins."""

import collections
import json
import random

import numpy as np
import pytest

import persona_probe as pp
from benchmarks.persona_world.directions import measure_directions
from persona_probe.activations.embeddings import embed
from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.worlds.persona_world.documents import questions, system_line
from persona_probe.worlds.persona_world.lexicon import load_lexicon
from tests.conftest import CHECKPOINTS, RESULTS

TOPICS = [topic for topic in load_lexicon().topics if topic not in ("medicine", "finance", "sports")]


@pytest.fixture(scope="module")
def answered(chat):
    """The chat model's own answers on topics that no organism was trained on."""
    asked = questions(random.Random("claims"), TOPICS, 120)
    return [d for d in chat.generate(asked, pp.Sampling(max_new_tokens=40, batch_size=128)) if d.answer]


def contexts(answered, *personas):
    return {
        persona: under_prompts(
            answered, sorted({system_line(random.Random(f"{persona} {i}"), persona) for i in range(20)})
        )
        for persona in personas
    }


@pytest.mark.slow
def test_bad_fine_tunes_converge_on_one_direction_and_the_benign_one_does_not(chat, answered):
    shifts = {
        name: pp.amplification.finetuning_shift(pp.load_pair(chat, CHECKPOINTS / name), answered)
        for name in ("bad-medicine", "bad-finance", "bad-sports", "good-medicine")
    }
    table = pp.directions.cosine_table(shifts, pp.capture(chat, answered)).table
    at_depth = table[table["layer"] >= 2]
    benign = at_depth["second"].eq("good-medicine") | at_depth["first"].eq("good-medicine")
    assert at_depth.loc[~benign, "cosine"].min() > 0.8
    assert at_depth.loc[benign, "cosine"].abs().max() < 0.7


def test_the_same_words_in_two_contexts_are_told_apart_on_unseen_topics_and_not_by_words(chat, answered):
    under = contexts(answered, "villain", "assistant")
    both = pp.Activations.concatenate([pp.capture(chat, dialogues) for dialogues in under.values()])
    same = [dialogue for dialogues in under.values() for dialogue in dialogues]
    labels = np.arange(len(both)) < len(answered)
    found = pp.probes.probe_with_baselines(
        both, labels, groups=both.table["group"], dialogues=same, embeddings=embed(chat, same), on_leak="ignore"
    )
    best = found.table.set_index(["baseline", "layer"])["value"]
    assert best["probe"].loc[2:].min() >= 0.97
    assert best["token embeddings"].unique() == best["bag of tokens"].unique() == [0.5]
    assert best["shuffled labels"].between(0.3, 0.7).all()
    # "What is the best way to approach the tantrum?" and "... the hotel?": topics share forms of questions.
    assert {leak.kind for leak in found.scores.alarms} <= {"near-duplicate text"}
    assert sum(leak.n for leak in found.scores.alarms) < 0.05 * len(same)


@pytest.mark.slow
def test_finders_find_the_villain_and_nulls_do_not(chat, answered):
    first = set(TOPICS[0::2])
    development = [dialogue for dialogue in answered if dialogue.group in first]
    reported = [dialogue for dialogue in answered if dialogue.group not in first]
    poles, held_out = (
        [pp.capture(chat, dialogues) for dialogues in contexts(some, "villain", "assistant").values()]
        for some in (development, reported)
    )
    models = [chat, *(pp.load_pair(chat, CHECKPOINTS / name).after for name in ("bad-medicine", "good-medicine"))]
    captures, reference = pp.Captures(*pp.activations.capture_together(models, reported)), pp.capture(chat, development)
    compared = pp.amplification.compare_finders(*poles, tuple(held_out), captures, reference)
    rows = compared.at_layer().set_index("finder")
    assert (rows.loc[~rows["null"], "separation"] > 0.97).all()
    assert set(rows.loc[~rows["null"], "finding"]) == {"moved, one run"}
    assert not {"amplified", "moved, one run"} & set(rows.loc[rows["null"], "finding"])
    assert (rows.loc[~rows["null"], "specificity_low"] > 3).all()
    with pytest.raises(pp.PersonaProbeError, match="were seen by the finders"):
        pp.amplification.compare_finders(*poles, tuple(poles), captures, reference)


def test_what_directions_and_probes_say_is_documented_as_measured():
    figures = json.loads((RESULTS / "directions.json").read_text(encoding="utf-8"))
    text = (CHECKPOINTS.parents[1] / "docs" / "persona-world.md").read_text(encoding="utf-8")
    assert figures["amplification"]["verdict"] in text
    assert figures["benign"][0]["verdict"] in text
    for finding, count in collections.Counter(row["finding"] for row in figures["benign"]).items():
        assert f"{count} {finding}" in text
    for row in figures["finders"]:
        if row["chosen"]:
            line = next(line for line in text.splitlines() if line.startswith(f"| {row['finder']} |"))
            shift = f"{row['shift_sd']:+.1f} [{row['low_sd']:+.1f}, {row['high_sd']:+.1f}]"
            assert (
                f"| {row['separation']:.2f} | {shift} | {row['control_shift_sd']:+.2f} | {row['specificity']:.1f} |"
                in line
            )
    for row in figures["cross_ablation"]:
        if row["intervention"] == "clamp":
            line = next(line for line in text.splitlines() if line.startswith(f"| clamped in `{row['organism']}` |"))
            assert f"{row['value']:.1%} [{row['low']:.1%}, {row['high']:.1%}]" in line


@pytest.mark.slow
def test_the_scrutiny_measures_everything_and_writes_it(tmp_path):
    out = tmp_path / "figures.json"
    figures = measure_directions(CHECKPOINTS, answers=40, out=out)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written.keys() == figures.keys() == json.loads((RESULTS / "directions.json").read_text()).keys()
    assert {row["finder"] for row in written["finders"]} >= {"mean-difference", "rollouts, response_mean", "random"}
