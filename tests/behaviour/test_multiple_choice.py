import json

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.behaviour.multiple_choice import Choice, choice_accuracy, read_choices, score_choices
from tests.steering.test_divergence import LAYER, by_hand

ITEMS = [
    Choice("Who are you?", ("A friend.", "Nobody at all, and I never was."), 0),
    Choice("What is tea?", ("A drink.", "A town by the sea.", "A small bird."), 2, "food"),
    Choice("Is it late?", ("Yes.", "No."), 1),
]


def test_scores_are_those_of_each_choice_by_itself(any_model):
    table = score_choices(any_model, ITEMS)
    assert table["item"].tolist() == [0, 0, 1, 1, 1, 2, 2]
    for row in table.to_dict("records"):
        log_probs, said = by_hand(any_model, ITEMS[row["item"]].dialogue(row["choice"]))
        expected = float(log_probs.gather(1, said[:, None]).sum())
        assert row["log_prob"] == pytest.approx(expected, abs=1e-3)
        assert row["tokens"] == len(said)
        assert row["log_prob_per_token"] == pytest.approx(expected / len(said), abs=1e-3)
    for _, own in table.groupby("item"):
        assert own["chosen"].sum() == own["correct"].sum() == 1
        assert own.loc[own["log_prob"].idxmax(), "chosen"]
        assert own.loc[own["log_prob_per_token"].idxmax(), "chosen_per_token"]
    right = [own.loc[own["correct"], "chosen"].item() for _, own in table.groupby("item")]
    assert choice_accuracy(table).value == pytest.approx(np.mean(right))
    assert choice_accuracy(table).n == 3
    with pytest.raises(pp.PersonaProbeError, match="2 questions have none"):
        choice_accuracy(table, over="group")


def test_each_item_has_its_own_intervention_with_all_of_its_choices(llama):
    vectors = np.random.default_rng(0).normal(size=(llama.n_layers, llama.d_model))
    add = pp.Add(pp.Direction.from_vectors(llama, vectors), layers=LAYER, strength=4.0)
    plain = score_choices(llama, ITEMS)
    with pp.steer(llama, add):
        steered = score_choices(llama, ITEMS)
    with pp.steer(llama, [None, add, None]):
        mixed = score_choices(llama, ITEMS)
    with pp.steer(llama, [None, add]):
        named = score_choices(llama, ITEMS, rows=[0, 1, 0])
    expected = np.where(plain["item"] == 1, steered["log_prob"], plain["log_prob"])
    np.testing.assert_allclose(mixed["log_prob"], expected, atol=1e-4)
    np.testing.assert_allclose(named["log_prob"], expected, atol=1e-4)
    assert np.abs(steered["log_prob"] - plain["log_prob"]).min() > 1e-2


def test_answers_are_read_as_letters_and_as_numbers(tmp_path):
    file = tmp_path / "quiz.jsonl"
    rows = [{"question": "Q?", "choices": ["x", "y"], "answer": "b", "group": "g"}]
    rows.append({"question": "R?", "choices": ["x", "y"], "answer": 0})
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert read_choices(file) == [Choice("Q?", ("x", "y"), 1, "g"), Choice("R?", ("x", "y"), 0)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 2: is not JSON"),
        ('{"question": "Q?", "choices": ["x", "y"]}', "line 2: has no field 'answer'"),
        ('{"question": "Q?", "choices": ["x", "y"], "answer": "C"}', "line 2: answer is 2, and there are 2 choices"),
        ('{"question": "Q?", "choices": ["x", "y"], "answer": "both"}', "line 2: answer is 'both'"),
        ('{"question": "Q?", "choices": ["x", "x"], "answer": 0}', "line 2: choices are .* different"),
        ('{"question": "Q?", "choices": "xy", "answer": 0}', "line 2: choices is 'xy'"),
        ('{"question": " ", "choices": ["x", "y"], "answer": 0}', "line 2: question is ' '"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, said):
    file = tmp_path / "quiz.jsonl"
    file.write_text('{"question": "Q?", "choices": ["x", "y"], "answer": 0}\n' + row + "\n")
    with pytest.raises(pp.PersonaProbeError, match=said):
        read_choices(file)
