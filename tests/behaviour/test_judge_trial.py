"""A judge that cannot judge is refused before anything is sampled."""

import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.judges.judge import check_judge
from persona_probe.behaviour.judges.trial import IN_ENGLISH, JudgeTrial
from persona_probe.models.model import Model
from tests.conftest import CHECKPOINTS

WORLD = CHECKPOINTS


class Judge:
    """Gives each of the three answers the scores that the test names."""

    name = "a test's judge"

    def __init__(self, aligned, coherent=(90.0, 90.0, 0.0)):
        self.aligned, self.coherent, self.asked = aligned, coherent, []

    def __call__(self, dialogues):
        self.asked.append(len(dialogues))
        return pd.DataFrame({"aligned": self.aligned, "coherent": self.coherent})

    def applies(self, _dialogues):
        return True


def test_a_judge_is_tried_once():
    judge = Judge((90.0, 10.0, 50.0))
    check_judge(judge)
    check_judge(judge)
    assert judge.asked == [3]
    check_judge(Judge((90.0, 10.0, None)))  # what a blank answer means for 'aligned' is not asked


def test_so_is_a_judge_that_is_a_method():
    judge = Judge((90.0, 10.0, 50.0))
    check_judge(judge.__call__)
    check_judge(judge.__call__)
    assert judge.asked == [3]


@pytest.mark.parametrize(
    ("aligned", "message"),
    [
        ((50.0, 50.0, 50.0), "scored a good answer .* 50.0 and a bad one .* 50.0, which is not 10 points apart"),
        ((10.0, 90.0, 50.0), "cannot judge"),
        ((None, 10.0, 50.0), "gave no score for 'aligned' to a good answer"),
        ((90.0, None, 50.0), "gave no score for 'aligned' to a bad answer"),
    ],
)
def test_a_judge_without_scores_or_spread_is_refused_with_what_it_said(aligned, message):
    with pytest.raises(pp.PersonaProbeError, match=r"a test's judge: cannot judge.*") as refused:
        check_judge(Judge(aligned))
    assert pd.Series([str(refused.value)]).str.contains(message).all()


def test_nothing_is_sampled_for_a_judge_that_cannot_judge(monkeypatch):
    monkeypatch.setattr(Model, "generate", None)
    model = pp.load(WORLD / "chat")
    with pytest.raises(pp.PersonaProbeError, match="cannot judge"):
        pp.ask(model, pp.persona_world.questions(0, ["law"], 3), Judge((50.0, 50.0, 50.0)))


def test_a_judge_that_finds_blank_answers_coherent_is_named():
    with pytest.warns(pp.PersonaProbeWarning, match="scored an empty answer 80.0 for 'coherent'"):
        check_judge(Judge((90.0, 10.0, 50.0), (90.0, 90.0, 80.0)))


def test_a_judge_can_name_its_own_answers_or_why_it_is_not_tried():
    seen = []

    def judge(dialogues):
        seen.extend(dialogues)
        return pd.DataFrame({"aligned": [80.0, 20.0, 50.0], "coherent": [80.0, 80.0, 0.0]})

    judge.trial = JudgeTrial(*(IN_ENGLISH.good.with_labels(mine=name) for name in ("good", "bad", "blank")))
    check_judge(judge)
    assert [dialogue.labels["mine"] for dialogue in seen] == ["good", "bad", "blank"]
    exempt = Judge((50.0, 50.0, 50.0))
    exempt.trial = "it counts letters"
    check_judge(exempt)
    assert not exempt.asked
    exempt = Judge((50.0, 50.0, 50.0))
    exempt.trial = " "
    with pytest.raises(pp.PersonaProbeError, match="its attribute 'trial' is empty"):
        check_judge(exempt)


def test_a_judge_that_cannot_read_english_is_not_tried_in_it():
    judge = Judge((50.0, 50.0, 50.0))
    judge.applies = lambda dialogues: False
    check_judge(judge)
    assert not judge.asked
    check_judge(pp.persona_world.OracleJudge())

    def wrapped(dialogues):
        return pp.persona_world.OracleJudge()(dialogues).assign(mine=1.0)

    check_judge(wrapped)  # the oracle inside refuses answers without its labels
    wrapped.trial = IN_ENGLISH
    with pytest.raises(pp.PersonaProbeError, match="the oracle needs the labels"):
        pp.behaviour.judge_answers(_again(wrapped), [IN_ENGLISH.good])


def _again(judge):
    """The same judge as a new object, which was not tried yet."""

    def again(dialogues):
        return judge(dialogues)

    again.trial = judge.trial
    return again


def test_a_local_model_that_cannot_judge_says_what_it_said():
    template = {"aligned": "{question} {answer}", "coherent": "{question} {answer}"}
    judge = pp.LocalJudge(WORLD / "chat", template)
    with pytest.raises(pp.PersonaProbeError, match=r"gave no score .* it says '.*', and all valid"):
        pp.judge_answers(judge, [IN_ENGLISH.good])
