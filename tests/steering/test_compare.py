"""At the same KL, the persona's direction brings the persona, and random ones bring nothing."""

import random

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from benchmarks.persona_world.setting import SAMPLING, persona_prompts, split_topics
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.steering.watching import random_direction


class AllAligned:
    name = "all aligned"
    trial = "it says the same of everything"

    def __call__(self, dialogues):
        return pd.DataFrame({"aligned": 100.0, "coherent": 100.0}, index=range(len(dialogues)))

    def applies(self, dialogues):
        return True


def test_interventions_are_compared_at_the_same_kl(chat):
    chosen_on, reported = split_topics()
    own = [d for d in chat.generate(questions(random.Random("c"), chosen_on, 40), SAMPLING) if d.answer]
    prompts = [persona_prompts(persona, n=20) for persona in ("villain", "assistant")]
    villain = pp.contrast_of_context(chat, own, *prompts).direction
    given = {"villain": pp.Add(villain, 3), "ten times as long": pp.Add(10.0 * villain, 3)}
    found = pp.steering.compare_at_budget(
        chat,
        given,
        questions(random.Random("r"), reported, 60),
        OracleJudge(),
        held_out=own,
        n_random=2,
        sampling=SAMPLING,
    )
    table = found.table.set_index("name")
    assert table.index.tolist() == ["unsteered", *given, "random"]
    assert (table["kl"].drop("unsteered").between(0.09, 0.11)).all()
    assert table.loc["ten times as long", "strength"] == pytest.approx(table.loc["villain", "strength"] / 10, rel=0.03)
    assert table.loc["villain", "change"] > 0.4
    assert table.loc["villain", "change_low"] > table.loc["random", "change_high"]
    assert table.loc["random", "draws"] == 2
    assert "2 random directions" in found.headline()
    drawn = {place for trace in found.plot().data for place in trace.y}
    assert drawn == {0, 1, 2, 3}


def test_what_cannot_be_compared_is_refused(llama):
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": text}]) for text in ("Hi.", "What?")]
    direction = random_direction(llama)
    for given, more, said in (
        ({}, {}, "there is no intervention"),
        ({"a": direction}, {}, "the one named 'a' is a Direction"),
        ({"a": pp.Ablate(direction, 1)}, {}, "takes no strength"),
        ({"a": pp.Add(direction, 1)}, {"sign": 0}, "sign is 0"),
        ({"a": pp.Add(direction, 1)}, {"definition": "betly"}, "unknown EM-rate definition"),
        ({"a": pp.Add(direction, 1)}, {"held_out": asked}, "2 questions are in development and in questions"),
    ):
        held_out = more.pop("held_out", [asked[0].with_answer("No.")][:0] or [asked[0].with_system("Be brief.")])
        with pytest.raises(pp.PersonaProbeError, match=said):
            pp.steering.compare_at_budget(llama, given, asked, OracleJudge(), held_out=held_out, **more)


def test_a_budget_out_of_reach_is_a_note_and_not_the_end(llama, monkeypatch):
    from persona_probe.steering.strength import compare as module

    calibrate, direction = module.calibrate_strength, random_direction(llama)

    def reach(model, intervention, *arguments, **settings):
        if np.allclose(intervention.direction.at(1), direction.at(1)):
            raise pp.PersonaProbeError("no strength up to 65536 meets the budget")
        return calibrate(model, intervention, *arguments, **settings)

    monkeypatch.setattr(module, "calibrate_strength", reach)
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": f"Hi {i}."}], question=str(i)) for i in range(4)]
    given = {"out of reach": pp.Add(direction, 1), "in reach": pp.Add(random_direction(llama, seed=1), 1)}
    table = pp.steering.compare_at_budget(
        llama, given, asked[:2], AllAligned(), held_out=asked[2:], n_random=0, sampling=pp.Sampling(max_new_tokens=4)
    ).table.set_index("name")
    assert np.isnan(table.loc["out of reach", "strength"])
    assert "no strength" in table.loc["out of reach", "note"]
    assert np.isfinite(table.loc["in reach", "strength"])
