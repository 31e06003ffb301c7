import warnings

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.probes.leakage import LeakageWarning, find_leaks
from tests.probes.planted import planted

WORDS = np.array(
    ["river", "stone", "market", "lantern", "violin", "harbour", "winter", "orchard", "copper", "meadow", "signal"]
)


def dialogues_of(groups, seed=0):
    rng = np.random.default_rng(seed)

    def text(n):
        return " ".join(rng.choice(WORDS, n))

    return [
        pp.Dialogue.from_messages(
            [{"role": "user", "content": f"About {group}: {text(6)}?"}, {"role": "assistant", "content": text(20)}],
            id=f"d{row}",
            question=f"{group} question {row // 16}",
            group=group,
        )
        for row, group in enumerate(groups)
    ]


def with_questions(activations, questions):
    return pp.Activations(activations.values, activations.table.assign(question=questions), activations.layers)


def test_a_clean_grouped_split_raises_no_alarm():
    activations, labels = planted(2.0)
    groups = activations.table["group"]
    dialogues = dialogues_of(groups)
    asked = with_questions(activations, [dialogue.question for dialogue in dialogues])
    scores = pp.cross_validate_probe(asked, labels, groups=groups, dialogues=dialogues, on_leak="raise")
    assert scores.alarms == ()


def test_a_prompt_in_training_and_test_is_told():
    activations, labels = planted(2.0)
    asked = with_questions(activations, [f"question {row // 4}" for row in range(240)])
    with pytest.warns(LeakageWarning, match="same prompt: 2[0-9]{2} dialogues"):
        scores = pp.cross_validate_probe(asked, labels, groups=None)
    (leak,) = scores.alarms
    assert leak.kind == "same prompt"
    assert all(scores.folds[one] != scores.folds[other] for one, other in leak.examples)
    assert "LEAK: same prompt" in repr(scores)
    with pytest.raises(pp.PersonaProbeError, match="same prompt"):
        pp.cross_validate_probe(asked, labels, groups=None, on_leak="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pp.cross_validate_probe(asked, labels, groups=None, on_leak="ignore").alarms == scores.alarms
    with pytest.raises(pp.PersonaProbeError, match="on_leak is 'shout'"):
        pp.cross_validate_probe(asked, labels, groups=None, on_leak="shout")


def test_equal_and_nearly_equal_texts_are_found_across_folds_only():
    dialogues = dialogues_of([f"topic {row}" for row in range(8)])
    folds = np.arange(8) % 2
    table = pd.DataFrame({"id": range(8)})
    assert find_leaks(folds, table, dialogues) == []
    near = dialogues[0].without_answer().with_answer(dialogues[0].answer.replace(" ", ", ", 1))
    within = [*dialogues[:2], near, *dialogues[3:]]
    # the prompt is the same, but in the same fold
    assert find_leaks(folds, table, within) == []
    across = [dialogues[0], pp.Dialogue.from_messages([*_reworded(near)]), *dialogues[2:]]
    (leak,) = find_leaks(folds, table, across)
    assert (leak.kind, leak.n, leak.examples) == ("near-duplicate text", 2, ((0, 1),))
    kinds = {leak.kind for leak in find_leaks(folds, table, [dialogues[0], dialogues[0], *dialogues[2:]])}
    assert kinds == {"same dialogue", "same prompt"}
    assert [leak.kind for leak in find_leaks(folds, table.assign(id=[1, 1, *range(2, 8)]))] == ["same dialogue"]
    with pytest.raises(pp.PersonaProbeError, match="8 rows"):
        find_leaks(folds, table, dialogues[:2])


def _reworded(dialogue):
    first, last = dialogue.as_messages()
    return [{**first, "content": first["content"].replace("?", " ?")}, last]


def test_ten_thousand_texts_are_no_burden():
    dialogues = dialogues_of([f"topic {row % 50}" for row in range(3000)])
    assert find_leaks(np.arange(3000) % 50 % 5, pd.DataFrame(index=range(3000)), dialogues) == []
