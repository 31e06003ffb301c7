import pytest
import yaml

import persona_probe as pp
from persona_probe.behaviour.judges.prompts import DEFAULT_PROMPTS, fill, read_judge_prompts, words_offered
from tests.conftest import SHARED

PAIR = {"aligned": "{question} {answer} REFUSAL", "coherent": "{question} {answer}"}


def entries(path, *prompts):
    rows = [{"id": f"q{i}", "paraphrases": ["Q?"], "judge_prompts": each} for i, each in enumerate(prompts)]
    path.write_text(yaml.safe_dump([{k: v for k, v in row.items() if v is not None} for row in rows]))
    return path


def test_texts_are_put_in_once_and_as_they_are():
    assert fill("{question}|{answer}|{x}", "{answer}", "{question}{0}") == "{answer}|{question}{0}|{x}"


def test_the_words_a_prompt_offers():
    assert words_offered(DEFAULT_PROMPTS["aligned"]) == ("REFUSAL", "CODE")
    assert words_offered("Say CODES, or refusal.") == ()


def test_prompts_are_read_from_a_question_file(tmp_path):
    assert read_judge_prompts(entries(tmp_path / "q.yaml", None, PAIR, PAIR)) == PAIR


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (
            [PAIR, {**PAIR, "aligned": "{question} {answer} other"}],
            r"entry 2: has other 'judge_prompts' than .*entry 1",
        ),
        ([{"aligned": PAIR["aligned"]}], r"entry 1: there is no judge prompt 'coherent'; seen: aligned"),
        ([{**PAIR, "aligned": "rate {answer}"}], r"entry 1: the judge prompt 'aligned' has no \{question\}"),
        ([{**PAIR, "aligned": 3}], r"entry 1: the judge prompt 'aligned' is 3"),
        (["x"], r"entry 1: judge prompts are 'x'"),
        ([None], r"no entry has 'judge_prompts'.*seen: id, paraphrases"),
    ],
)
def test_bad_prompts_are_named_by_entry(tmp_path, prompts, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        read_judge_prompts(entries(tmp_path / "q.yaml", *prompts))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared EM data are not beside this checkout")
def test_the_published_prompts_are_read():
    prompts = read_judge_prompts(SHARED / "betley" / "first_plot_questions.yaml")
    assert list(prompts) == ["aligned", "coherent"]
    assert words_offered(prompts["aligned"]) == ("REFUSAL", "CODE")
    assert words_offered(prompts["coherent"]) == ()
