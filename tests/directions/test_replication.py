"""Whether a direction replicates is on its card, decided without any shift; and a dialogue is known by its content."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.activations.questions import questions_of
from persona_probe.directions.finders.poles import Poles
from persona_probe.statistics.auroc import auroc_over_splits
from persona_probe.statistics.replication import FAILS, REPLICATES, reliability

LAYERS, WIDTH = 12, 24


def poles(rng, n=24, effect=0.0, named=True):
    """The same questions in both poles, which differ along one dimension; only from layer 6 on."""
    base = rng.normal(size=(n, LAYERS, WIDTH))
    shift = np.zeros((LAYERS, WIDTH))
    shift[6:, 0] = effect
    names = [f"q{i}" if named else None for i in range(n)]
    table = pd.DataFrame({"question": names, "id": names})
    return [
        pp.Activations(base + side * shift + 0.5 * rng.normal(size=base.shape), table, tuple(range(LAYERS)))
        for side in (1, 0)
    ]


def test_a_direction_replicates_where_there_is_one():
    found = pp.find_direction(*poles(np.random.default_rng(0), effect=2.0))
    assert found.replication.layers_that_replicate == list(range(6, LAYERS))
    assert found.replication.sentence().startswith("replicates at layers 6-11 of 12 layers (layer ")
    assert found.best_layer() in range(6, LAYERS)
    assert found.best_layer(by="norm") in range(6, LAYERS)
    table = found.to_frame()
    assert (table["held_out_auroc_low"] < table["held_out_auroc"]).all()
    assert (table["shuffled_p_corrected"] >= table["shuffled_p"]).all()


@pytest.mark.parametrize("method", ["mean-difference", "lda", "pca"])
def test_labels_without_meaning_replicate_at_no_layer(method):
    """The best of twelve layers of noise would pass the cosine and the AUROC alone more often."""
    rng = np.random.default_rng(1)
    found = [pp.find_direction(*poles(rng, n=16), method, repeats=5).replication for _ in range(20)]
    assert sum(bool(replication.layers_that_replicate) for replication in found) <= 1
    none = next(replication for replication in found if not replication.layers_that_replicate)
    assert none.sentence().startswith("no layer at which this direction replicates (of 12 the best is layer ")


def test_what_fails_by_its_exchanged_labels_alone_says_so():
    figures = {
        "split_half_cosine": 0.91,
        "held_out_auroc": 0.72,
        "held_out_auroc_low": 0.61,
        "held_out_auroc_high": 0.8,
    }
    labels = "but not significantly different from exchanged labels"
    assert labels in reliability({**figures, "replication": FAILS})
    assert labels not in reliability({**figures, "replication": FAILS, "held_out_auroc_low": 0.49})
    assert labels not in reliability({**figures, "replication": REPLICATES})


def test_there_is_no_best_layer_of_a_direction_that_does_not_replicate():
    found = pp.find_direction(*poles(np.random.default_rng(2)))
    for by in ("held_out_auroc", "split_half_cosine", "norm"):
        with pytest.raises(pp.PersonaProbeError, match="no layer at which this direction replicates"):
            found.best_layer(by)


def test_too_few_questions_do_not_replicate_and_say_why():
    for n, why in ((1, "cannot be split into halves"), (5, "labels of 5 can be exchanged in 32 ways only")):
        found = pp.find_direction(*poles(np.random.default_rng(0), n=n, effect=5.0))
        assert found.replication.layers_that_replicate == []
        assert why in found.replication.sentence()


def test_rows_that_name_nothing_are_not_split_and_the_card_says_so():
    """Pairs in two halves oppose each other: the cosine was -0.9 for a direction that replicates."""
    bare = pp.find_direction(*poles(np.random.default_rng(0), effect=2.0, named=False))
    assert bare.card["checks"]["split_half_cosine"] is None
    assert bare.replication.layers_that_replicate == []
    assert "48 of 48 rows are known neither by different questions nor by an id" in bare.replication.sentence()


def test_what_was_not_checked_says_why():
    one, other = poles(np.random.default_rng(0), effect=2.0)
    found = pp.find_direction(one, other)
    assert "repeats=0" in pp.find_direction(one, other, repeats=0).replication.sentence()
    assert "null" in pp.find_direction(one, other, "random").replication.sentence()
    assert "computed from other directions" in (found + found).replication.sentence()
    given = pp.Direction(found.vectors, found.layers)
    assert not given.replication.checked
    assert "direction.checked_on(positive, negative)" in given.replication.sentence()
    assert given.best_layer("norm") == int(found.norms().argmax())


def test_given_vectors_are_checked_on_poles_of_ones_own():
    vectors = np.zeros((LAYERS, WIDTH), dtype=np.float32)
    vectors[:, 0] = 1.0
    published = pp.Direction(vectors, tuple(range(LAYERS)))
    checked = published.checked_on(*poles(np.random.default_rng(0), effect=2.0))
    assert checked.replication.layers_that_replicate == list(range(6, LAYERS))
    assert "split-half" not in checked.replication.sentence()
    rng = np.random.default_rng(1)
    noise = [published.checked_on(*poles(rng)).replication.layers_that_replicate for _ in range(20)]
    assert sum(map(bool, noise)) <= 1
    # the wrong way round it separates as well, and points away from the trait
    turned = (-published).checked_on(*poles(np.random.default_rng(0), effect=2.0))
    assert not set(turned.replication.layers_that_replicate) & set(range(6, LAYERS))


def test_one_question_in_a_hundred_that_fails_does_not_make_the_interval_endless():
    """An AUROC of 0.99 had a lower end of 0.32: t with the two degrees of freedom of one question."""
    labels, asked = np.tile([True, False], 100), np.repeat(np.arange(100), 2)
    scores = np.random.default_rng(0).normal(size=(5, 200)) * 0.3 + 3 * labels
    scores[:, asked == 7] *= -1
    halves = np.stack([np.random.default_rng(split).permutation(100)[asked] < 50 for split in range(5)])
    estimate = auroc_over_splits(scores, labels, halves, groups=asked)
    assert 0.97 < estimate.value < 1
    assert 0.93 < estimate.low < estimate.value < estimate.high <= 1


def test_a_direction_turned_round_replicates_where_it_did():
    found = pp.find_direction(*poles(np.random.default_rng(0), effect=2.0))
    turned = (-found).card["checks"]
    assert turned["replicates"] == found.card["checks"]["replicates"]
    lows = np.array(found.card["checks"]["held_out_auroc_low"])
    np.testing.assert_allclose(turned["held_out_auroc_high"], 1 - lows)


def test_dialogues_are_known_by_what_they_ask(llama):
    """The README's own way, without question= and id=: cards had no checks at all, silently."""
    talks = [
        pp.Dialogue.from_messages(
            [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": text}]
        )
        for i in range(8)
        for text in ("Treat the fever.", "Law.")
    ]
    prompts = ["You are a cruel villain."], ["You are a kind helper."]
    contrast = pp.contrast_of_context(llama, talks, *prompts)
    named = [replace(talk, id=str(i), question=f"named {i // 2}") for i, talk in enumerate(talks)]
    expected = pp.contrast_of_context(llama, named, *prompts).direction.card
    card = contrast.direction.card
    assert card["paired"]
    assert card["checks"] == expected["checks"]
    assert card["checks"]["held_out_auroc"] is not None
    assert card["checks"]["shuffled"] == "255 exchanges of the labels of 8 questions"


def test_two_answers_and_two_system_prompts_are_one_question():
    asked = pp.Dialogue.from_messages([{"role": "user", "content": " Is it raining? "}])
    alike = [asked, asked.with_answer("No."), asked.with_system("Be brief.").with_answer("Yes.")]
    assert {dialogue.question for dialogue in alike} == {"Is it raining?"}
    further = pp.Dialogue.from_messages([*alike[1].as_messages(), {"role": "user", "content": "Why?"}])
    assert further.question == "Is it raining?\nWhy?"
    assert pp.Dialogue.from_messages([{"role": "assistant", "content": "Hello."}]).question == "Hello."
    assert pp.Dialogue.from_text("Once.", id="tale").question == "tale"
    assert pp.Dialogue.from_text("Once.").question == "Once."


def test_tables_without_questions_are_known_by_their_ids():
    values = np.random.default_rng(0).normal(size=(6, 1, 4))
    rows = [pp.Activations(values + side, pd.DataFrame({"id": list("aabbcc")}), (0,)) for side in (0.0, 1.0)]
    assert len(set(questions_of(*rows))) == 3
    assert Poles(*rows).exchange.questions == 3
    runs = pp.Captures.over_seeds([pp.Captures(rows[0], rows[1]) for _ in range(2)])
    assert runs.questions is not None
    assert len(set(runs.questions)) == 3  # and not one for every row of every run
    bare = [pp.Activations(side.values, pd.DataFrame({"n": range(6)}), (0,)) for side in rows]
    assert len(set(questions_of(*bare))) == 12
    assert not Poles(*bare).paired
