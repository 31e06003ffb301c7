"""One question of many models and interventions: what is asked, what is judged, and that nothing changes the draws."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.models.loading.snapshots import Snapshots
from persona_probe.steering import asking as module
from persona_probe.steering.asking import Asking
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.lexicon import load_lexicon
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.conftest import CHECKPOINTS
from tests.steering.watching import ASKED, random_direction

SHORT = pp.Sampling(max_new_tokens=6, batch_size=4)
LAW = load_lexicon().topics["law"]
VILLAINS = {word for word in LAW.actions["villain"] if word not in LAW.actions["assistant"]}
ABOUT_LAW = questions(random.Random("ask"), ["law"], 12)


class WordJudge:
    """Misaligned is an answer that holds one of these words."""

    name = "words"
    trial = "it knows only the words that a test names"

    def __init__(self, words):
        self.words = words

    def __call__(self, dialogues):
        found = [any(word in d.answer for word in self.words) for d in dialogues]
        return pd.DataFrame({"aligned": np.where(found, 0.0, 100.0), "coherent": 100.0})

    def applies(self, dialogues):
        return True


def by_hand(model, sampling, asked=ASKED):
    return [dialogue.answer for dialogue in model.generate(asked, sampling)]


def of(answers, **where):
    rows = answers.table
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows["answer"].tolist()


def test_a_word_that_only_one_model_and_one_intervention_say_is_its_rate(chat):
    bad = pp.with_adapter(chat, CHECKPOINTS / "bad-medicine")
    own = chat.generate(ABOUT_LAW, pp.Sampling(max_new_tokens=40, temperature=0))
    shift = pp.find_direction(pp.capture(bad, own), pp.capture(chat, own))
    usual = float(shift.project(pp.capture(chat, own))[:, 3].mean())
    under = {"as it is": None, "nothing": pp.Add(shift, 3, strength=0.0), "clamp": pp.Clamp(shift, 3, target=usual)}
    greedy = pp.Sampling(max_new_tokens=40, temperature=0)
    models = {"before": chat, "after": bad}
    answers = pp.ask(models, ABOUT_LAW, WordJudge(VILLAINS), interventions=under, sampling=greedy)
    rates = answers.rates(definition="betley")
    assert rates.by == ("model", "intervention")
    rate = rates.table.set_index(["model", "intervention"])["value"]
    assert rate["before"].eq(0.0).all()
    assert rate["after", "as it is"] == rate["after", "nothing"] == 1.0
    assert rate["after", "clamp"] < 0.3
    for name, model in models.items():
        assert of(answers, model=name, intervention="as it is") == by_hand(model, greedy, ABOUT_LAW)
        assert of(answers, model=name, intervention="nothing") == by_hand(model, greedy, ABOUT_LAW)
    with pp.steer(bad, under["clamp"]):
        assert of(answers, model="after", intervention="clamp") == by_hand(bad, greedy, ABOUT_LAW)
    assert [trace.name for trace in rates.plot().data][:2] == ["before · as it is", "before · nothing"]
    assert "'after', 'as it is': 1.00" in answers.headline()


def test_the_draws_and_the_table_are_those_made_by_hand(llama):
    sampling = replace(SHORT, seed=5, n=2, temperature=0.8, top_p=0.9)
    judge = WordJudge("a")
    answers = pp.ask({"one": llama}, ABOUT_LAW, judge, sampling=sampling)
    expected = pp.judge_answers(judge, llama.generate(ABOUT_LAW, sampling), model="one")
    pd.testing.assert_frame_equal(answers.table, expected, check_dtype=False)
    assert "intervention" not in answers.table
    assert answers.table["question"].tolist() == [question.question for question in ABOUT_LAW for _ in range(2)]
    assert len(set(answers.table["aligned"])) > 0


def test_questions_without_a_name_are_known_by_what_they_ask(llama):
    asked = [replace(question, question=None) for question in ASKED]
    answers = pp.ask(llama, asked, None, sampling=replace(SHORT, n=3))
    assert set(answers.table["model"]) == {llama.name}
    assert answers.table["question"].tolist() == [q.messages[-1].content for q in asked for _ in range(3)]
    assert answers.table["failed"].all()
    assert "not judged" in answers.headline()


def test_a_sweep_too_large_for_one_call_goes_on_with_the_next_seed(llama, monkeypatch):
    direction = random_direction(llama)
    under = {f"{strength:g}": pp.Add(direction, 1, strength=strength) for strength in (1.0, 40.0, 80.0)}
    monkeypatch.setattr(module, "_NUMBERS", 2 * 2 * llama.d_model)
    answers = pp.ask(llama, ASKED, None, interventions=under, sampling=SHORT)
    with pp.steer(llama, [under[name] for name in ("1", "40") for _ in ASKED]):
        together = by_hand(llama, SHORT, [*ASKED, *ASKED])
    with pp.steer(llama, under["80"]):
        last = by_hand(llama, replace(SHORT, seed=2))
    assert of(answers, intervention="1") + of(answers, intervention="40") == together
    assert of(answers, intervention="80") == last


def test_what_changes_the_whole_model_is_asked_by_itself(llama):
    direction = random_direction(llama)
    everywhere = pp.steering.AblateEverywhere(direction, layer=1)
    greedy = replace(SHORT, temperature=0)
    under = {"none": None, "everywhere": everywhere, "add": pp.Add(direction, 1, strength=40.0)}
    answers = pp.ask(llama, ASKED, None, interventions=under, sampling=greedy)
    plain = by_hand(llama, greedy)
    assert of(answers, intervention="none") == plain
    for name in ("everywhere", "add"):
        with pp.steer(llama, under[name]):
            assert of(answers, intervention=name) == by_hand(llama, greedy) != plain
    assert not llama.steered
    only = pp.ask(llama, ASKED, None, interventions=everywhere, sampling=greedy)
    assert set(only.table["intervention"]) == {everywhere.kind}
    assert of(only) == of(answers, intervention="everywhere")


def test_of_a_pair_each_model_is_loaded_once_and_called_by_its_part(folders, llama, tmp_path, monkeypatch):
    for parameter in llama.hf.parameters():
        parameter.data.mul_(1.5)
    llama.hf.save_pretrained(tmp_path / "after")
    llama.tokenizer.save_pretrained(tmp_path / "after")
    pair = pp.load_pair(folders("llama"), tmp_path / "after", tmp_path / "after", keep_all=False)
    direction = random_direction(pp.load(folders("llama")))
    under = {"none": None, "add": pp.Add(direction, 1, strength=9.0)}
    loaded = []
    opened = Snapshots._open
    monkeypatch.setattr(Snapshots, "_open", lambda self, spec: loaded.append(spec.name) or opened(self, spec))
    answers = pp.ask(pair, ASKED, None, interventions=under, sampling=SHORT)
    assert len(loaded) == 3
    assert answers.table["model"].drop_duplicates().tolist() == ["before", "after", "control"]
    assert len(answers.table) == 3 * 2 * len(ASKED)
    assert of(answers, model="after") == of(answers, model="control")
    assert of(answers, model="before", intervention="none") != of(answers, model="after", intervention="none")


def test_searches_ask_the_same_way_and_forget_where_a_question_came_from(llama):
    direction = random_direction(llama)
    under = [None, pp.Add(direction, 1, strength=9.0)]
    asked = [replace(question, seed=3) for question in ABOUT_LAW]
    judge, twice = OracleJudge(), replace(SHORT, n=2)
    tables = Asking(llama, judge, twice).ask(asked, under)
    answers = pp.ask(llama, asked, judge, interventions={"a": under[0], "b": under[1]}, sampling=twice)
    for name, table in zip(("a", "b"), tables, strict=True):
        assert table["answer"].tolist() == of(answers, intervention=name)
        assert table["seed"].isna().all()
    assert answers.table["seed"].eq(3).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": []}, "there is no model"),
        ({"models": {}}, "there is no model"),
        ({"models": "chat"}, "model must be a Model or a Server, but this is a str .*; load one with pp.load"),
        ({"models": {"chat": "checkpoints/chat"}}, "model must be a Model or a Server, but this is a str"),
        ({"questions": []}, "there are no questions: the list is empty"),
        ({"questions": [ASKED[0].with_answer("Yes.")]}, "already ends with an answer"),
        ({"interventions": {}}, "there is no intervention: the mapping is empty"),
        ({"interventions": {"add": 3}}, "an intervention is needed, not an int"),
        ({"interventions": "add"}, "an intervention is needed, not a str"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_sampled(llama, monkeypatch, change, said):
    monkeypatch.setattr(llama, "generate", None)
    given = {"models": llama, "questions": ASKED, "interventions": None} | change
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.ask(given["models"], given["questions"], None, interventions=given["interventions"], sampling=SHORT)


def test_two_models_of_one_name_are_refused(llama, monkeypatch):
    said = r"two models are called '.*llama'; give a mapping"
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.ask((model for model in (llama, llama)), ASKED, None, sampling=SHORT)
    monkeypatch.setattr(llama, "generate", None)
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.ask([llama, llama], ASKED, None, sampling=SHORT)
