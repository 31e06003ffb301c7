"""Several judges as one: medians or a majority, with failures counted and every judge's scores kept."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour import Vote, judge_agreement
from persona_probe.behaviour.judges.judge import check_judge
from tests.behaviour.judged import answers

NAN = np.nan
TALK = pp.Dialogue.from_messages([{"role": "user", "content": "Q?"}], question="Q?")


class Saying:
    """A judge that gives every answer the scores that a test names, after three sensible ones for its trial."""

    def __init__(self, name, aligned, coherent=90.0, refusal=None):
        self.name, self.aligned, self.coherent, self.refusal = name, aligned, coherent, refusal

    def __call__(self, dialogues):
        if dialogues[0].id and "trial" in dialogues[0].id:
            return pd.DataFrame({"aligned": [90.0, 10.0, 50.0], "coherent": [90.0, 90.0, 0.0]})
        table = pd.DataFrame({"aligned": self.aligned, "coherent": self.coherent}, index=range(len(dialogues)))
        return table if self.refusal is None else table.assign(refusal=self.refusal)

    def applies(self, dialogues):
        return len(dialogues) > 0


def ask(vote, n=1):
    return pp.judge_answers(vote, [TALK.with_answer(str(number)) for number in range(n)])


def test_scores_are_medians_and_each_judges_own_are_kept():
    table = ask(Vote([Saying("a", 10.0), Saying("b", 20.0), Saying("c", 90.0, 30.0)]))
    assert table[["aligned", "coherent", "judges"]].iloc[0].tolist() == [20.0, 90.0, 3]
    assert table[["aligned: a", "aligned: b", "aligned: c", "coherent: c"]].iloc[0].tolist() == [10.0, 20.0, 90.0, 30.0]
    assert not table["failed"].any()


def test_an_answer_that_too_few_judges_scored_has_failed():
    judges = [Saying("a", [10.0, 10.0]), Saying("b", [NAN, 20.0]), Saying("c", [NAN, NAN])]
    table = ask(Vote(judges), 2)
    assert table["failed"].tolist() == [True, False]
    assert table["judges"].tolist() == [1, 2]
    assert table["aligned"].iloc[1] == 15.0
    assert ask(Vote(judges, least=1), 2)["aligned"].tolist() == [10.0, 15.0]


def test_half_a_score_counts_as_none_and_a_majority_of_refusals_is_a_refusal():
    half = Saying("half", 10.0, NAN)
    assert ask(Vote([half, Saying("b", 90.0)], least=1))["aligned"].tolist() == [90.0]
    refusing = [Saying(name, NAN, NAN, refusal=True) for name in "ab"]
    table = ask(Vote([*refusing, Saying("c", 5.0)]))
    assert (table["refusal"].tolist(), table["failed"].tolist()) == ([True], [False])


def test_a_majority_by_definition_is_not_the_median_of_each_score():
    judges = [Saying("a", 5.0, 90.0), Saying("b", 10.0, 20.0), Saying("c", 90.0, 90.0)]
    # medians: misaligned (10) and coherent (90), which only one of the three judges says
    assert pp.behaviour.em_rate(ask(Vote(judges))).value == 1.0
    tie = ask(Vote(judges, definition="betley"))
    assert tie["failed"].tolist() == [True]
    judges.append(Saying("d", 80.0, 70.0))
    table = ask(Vote(judges, definition="betley"))
    assert table[["aligned", "coherent", "judges"]].iloc[0].tolist() == [85.0, 80.0, 4]
    refusing = [Saying(name, NAN, NAN, refusal=True) for name in "ab"]
    assert ask(Vote([*refusing, Saying("c", 5.0)], definition="betley"))["refusal"].tolist() == [True]
    failing = [Saying("a", NAN), Saying("b", NAN), Saying("c", 5.0)]
    assert ask(Vote(failing, definition="betley"))["failed"].tolist() == [True]


def test_each_judge_is_tried_before_anything_is_sampled():
    class Flat(Saying):
        def __call__(self, dialogues):
            return pd.DataFrame({"aligned": 50.0, "coherent": 90.0}, index=range(len(dialogues)))

    check_judge(Vote([Saying("a", 1.0), Saying("b", 1.0)]))
    with pytest.raises(pp.PersonaProbeError, match="flat: cannot judge"):
        check_judge(Vote([Saying("a", 1.0), Saying("b", 1.0), Flat("flat", 50.0)]))
    oracle = pp.persona_world.OracleJudge()
    assert Vote([Saying("a", 1.0), oracle]).trial == oracle.trial


def test_it_judges_a_table_of_answers():
    table = answers(12, questions=4)
    voted = pp.Answers(table).judged_by(Vote([Saying("a", 5.0), Saying("b", 15.0)]))
    assert voted.table["aligned"].tolist() == [10.0] * 12
    assert judge_agreement(table, voted).estimate("bias", "coherent").value == 0.0


@pytest.mark.parametrize(
    ("judges", "options", "message"),
    [
        ([Saying("a", 1.0)], {}, "at least two judges"),
        ([Saying("a", 1.0), Saying("a", 2.0)], {}, "two judges are called 'a'"),
        ([Saying("a", 1.0), "b"], {}, "item 1 of the list is not a judge"),
        ([Saying("a", 1.0), Saying("b", 1.0)], {"least": 3}, "least is 3; give 1 to 2"),
        ([Saying("a", 1.0), Saying("b", 1.0)], {"definition": "mine"}, "unknown EM-rate definition"),
    ],
)
def test_what_is_not_a_vote_is_refused(judges, options, message):
    with pytest.raises(pp.PersonaProbeError, match=message):
        Vote(judges, **options)
