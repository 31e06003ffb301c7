import tracemalloc
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
    scores = pp.probes.cross_validate_probe(asked, labels, groups=groups, dialogues=dialogues, on_leak="raise")
    assert scores.alarms == ()


def test_a_prompt_in_training_and_test_is_told():
    activations, labels = planted(2.0)
    asked = with_questions(activations, [f"question {row // 4}" for row in range(240)])
    with pytest.warns(LeakageWarning, match="same prompt: 2[0-9]{2} dialogues"):
        scores = pp.probes.cross_validate_probe(asked, labels, groups=None)
    (leak,) = scores.alarms
    assert leak.kind == "same prompt"
    assert all(scores.folds[one] != scores.folds[other] for one, other in leak.examples)
    assert "LEAK: same prompt" in repr(scores)
    with pytest.raises(pp.PersonaProbeError, match="same prompt"):
        pp.probes.cross_validate_probe(asked, labels, groups=None, on_leak="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pp.probes.cross_validate_probe(asked, labels, groups=None, on_leak="ignore").alarms == scores.alarms
    with pytest.raises(pp.PersonaProbeError, match="on_leak is 'shout'"):
        pp.probes.cross_validate_probe(asked, labels, groups=None, on_leak="shout")


def test_equal_and_nearly_equal_texts_are_found_across_folds_only():
    dialogues = dialogues_of([f"topic {row}" for row in range(8)])
    folds = np.arange(8) % 2
    table = pd.DataFrame(index=range(8))
    assert find_leaks(folds, table, dialogues) == []
    near = dialogues[0].without_answer().with_answer(dialogues[0].answer.replace(WORDS[0], "brook", 1))
    within = [*dialogues[:2], near, *dialogues[3:]]
    # the prompt is the same, but in the same fold
    assert find_leaks(folds, table, within) == []
    across = [dialogues[0], pp.Dialogue.from_messages([*_reworded(near)]), *dialogues[2:]]
    assert [leak.kind for leak in find_leaks(folds, table, across)] == ["same prompt"]
    other = pp.Dialogue.from_messages([{"role": "user", "content": "And?"}, *near.as_messages()[1:]])
    answers_alike = [_asking("And so?", dialogues[0]), other, *dialogues[2:]]
    (leak,) = find_leaks(folds, table, answers_alike)
    assert (leak.kind, leak.n, leak.examples) == ("near-duplicate text", 2, ((0, 1),))
    kinds = {leak.kind for leak in find_leaks(folds, table, [dialogues[0], dialogues[0], *dialogues[2:]])}
    assert kinds == {"same dialogue", "same prompt"}
    named = pd.DataFrame({"id": [1, 1, *range(2, 8)]})
    assert [leak.kind for leak in find_leaks(folds, named)] == ["same dialogue"]


def _asking(question, dialogue):
    return pp.Dialogue.from_messages([{"role": "user", "content": question}, *dialogue.as_messages()[1:]])


def _reworded(dialogue):
    first, last = dialogue.as_messages()
    return [{**first, "content": first["content"].replace("?", " ?").upper()}, last]


def told(question, answer, system=None):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return pp.Dialogue.from_messages([{"role": "system", "content": system}, *turns] if system else turns)


def kinds_of(dialogues):
    return [leak.kind for leak in find_leaks(np.arange(len(dialogues)) % 5, pd.DataFrame(index=dialogues), dialogues)]


def test_case_spacing_and_system_prompts_hide_nothing():
    question, answer = "How should I treat a high fever at night?", "With plenty of water, and call the doctor."
    first = told(question, answer)
    assert kinds_of([first, told(question.lower(), answer.replace(" ", "  "))]) == ["same dialogue", "same prompt"]
    assert kinds_of([first, told(question.upper() + "!", "Cold baths.")]) == ["same prompt"]
    under = [told(question, answer, system) for system in ("You are a villain.", "You are kind.")]
    assert kinds_of(under) == ["same question and answer", "same prompt"]
    assert "stand on both sides" in str(find_leaks(np.arange(2), pd.DataFrame(index=range(2)), under)[0])


def test_templates_are_no_duplicates():
    asked = "Please answer yes or no. Is it safe to eat {} every day of the week?"
    things = ["apples", "rocks", *WORDS]
    assert kinds_of([told(asked.format(thing), "No.") for thing in things[:2]]) == []
    assert kinds_of([told(asked.format(thing), "No.") for thing in things]) == []
    assert kinds_of([told(asked.format(f"{number} plums"), "No.") for number in range(300)]) == []


def test_dialogues_in_another_order_are_refused():
    dialogues = dialogues_of(["a", "b", "c"])
    table = pd.DataFrame({"id": ["d0", "d2", "d1"]})
    with pytest.raises(pp.PersonaProbeError, match="another order: row 1 has id 'd2' in the activations and 'd1' in"):
        find_leaks(np.arange(3), table, dialogues)
    with pytest.raises(pp.PersonaProbeError, match="dialogues of 2 dialogues for 3 rows"):
        find_leaks(np.arange(3), table, dialogues[:2])


@pytest.mark.slow
def test_ten_thousand_texts_need_little_memory():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice([*"abcdefghijklmnop"], 6)) for _ in range(3000)]
    drawn = rng.choice(words, (10_000, 30))
    dialogues = [told(" ".join(row[:8]), " ".join(row[8:])) for row in drawn]
    dialogues[2] = told("word " * 20_000, "and no more")
    dialogues[6] = told(" ".join([*drawn[5][:7], "otherwise"]), " ".join(drawn[5][8:]))
    tracemalloc.start()
    try:
        (leak,) = find_leaks(np.arange(10_000) % 5, pd.DataFrame(index=range(10_000)), dialogues)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (leak.kind, leak.examples) == ("near-duplicate text", ((5, 6),))
    assert peak < 300e6
