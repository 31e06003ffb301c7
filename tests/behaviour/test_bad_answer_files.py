"""Everything that may be wrong with a file of answers, each with what the user is told."""

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest

import persona_probe as pp

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HEADER = "id,model,question,answer,aligned,coherent"
GOOD = "1,base,How?,So.,95,90"
LINE = {"model": "base", "question": "How?", "answer": "So.", "aligned": 95, "coherent": 90}


def csv(*rows, header=HEADER):
    return "\n".join([header, *rows]) + "\n"


def jsonl(*rows, **changes):
    return "".join(json.dumps(row) + "\n" for row in (LINE, *rows, LINE | changes))


REFUSED = {
    "a score above 100": (
        "x.csv",
        csv(GOOD, "2,base,Why?,No.,950,90"),
        "x.csv, row 2: 'aligned' is '950'; scores are 0-100",
    ),
    "a score below 0": (
        "x.csv",
        csv(GOOD, "2,base,Why?,No.,95,-1"),
        "x.csv, row 2: 'coherent' is '-1'; scores are 0-100",
    ),
    "an infinite score": ("x.csv", csv("1,base,How?,So.,inf,90"), "x.csv, row 1: 'aligned' is 'inf'; scores are 0-100"),
    "a score above 100, after a text of two lines": (
        *("x.csv", csv('1,base,How?,"So.\nAnd so.",95,90', "2,base,Why?,No.,101,90")),
        *("x.csv, row 2 (line 4): 'aligned' is '101'",),
    ),
    "a score in JSON": ("x.jsonl", jsonl(aligned=300), "x.jsonl, line 2: 'aligned' is '300'; scores are 0-100"),
    "no column of answers": ("x.csv", csv("1,How?", header="id,question"), "no column holds the answers"),
    "no column of questions": ("x.csv", csv("So.,95", header="answer,aligned"), "no column holds the questions"),
    "two columns of scores": (
        *("x.csv", csv("How?,So.,95,90", header="question,answer,aligned,alignment_score")),
        *("'aligned' and 'alignment_score' could both be 'aligned'; say which one it is",),
    ),
    "a column twice": ("x.csv", csv("How?,So.,No.", header="question,answer,answer"), "has the column 'answer' twice"),
    "a row that is too short": (
        "x.csv",
        csv(GOOD, "2,base,Why?"),
        "x.csv, row 2: a row has other fields than the header (3, not 6)",
    ),
    "a row that is too long": (
        "x.csv",
        csv(GOOD, "2,base,Why?,No, never.,5,90"),
        "row 2: a row has other fields than the header (7",
    ),
    "semicolons": (
        "x.csv",
        csv(GOOD, header=HEADER).replace(",", ";"),
        "its columns seem to be separated by ';', not by commas",
    ),
    "tabs in a csv": ("x.csv", csv(GOOD, header=HEADER).replace(",", "\t"), "separated by '\\t', not by commas"),
    "commas in a tsv": ("x.tsv", csv(GOOD), "separated by ',', not by tabs"),
    "a quote that does not end": (
        "x.csv",
        csv('1,base,How?,"So.,95,90'),
        "x.csv: is not a table of texts between commas (line 2:",
    ),
    "an answer twice with other scores": (
        *("x.csv", csv(GOOD, "2,base,Why?,No.,5,90", "1,base,How?,So.,15,90")),
        *(
            "x.csv, row 3: is the answer '1' of ",
            "row 1 again, with other scores (aligned 15, coherent 90, not aligned 95,",
        ),
    ),
    "an empty file": ("x.csv", "", "x.csv: is empty; it needs at least one row"),
    "a header alone": ("x.csv", HEADER + "\n", "x.csv: is empty; it needs at least one row"),
    "an empty JSONL": ("x.jsonl", "\n\n", "x.jsonl: is empty; it needs at least one row"),
    "Latin-1": (
        *("x.csv", csv(GOOD, "2,base,Why?,Café.,95,90").encode("latin-1")),
        *("x.csv: is not UTF-8 text (line 3, byte", "is 0xE9, as in Latin-1 or Windows-1252); save it as UTF-8"),
    ),
    "UTF-16": ("x.csv", csv(GOOD).encode("utf-16"), "x.csv: is not UTF-8 text but seems to be UTF-16"),
    "UTF-16 without its mark": ("x.jsonl", jsonl().encode("utf-16-le"), "is not UTF-8 text but seems to be UTF-16"),
    "a last line that is cut off": (
        *("x.jsonl", jsonl() + '{"model": "base", "question": "Why?", "answ'),
        *("x.jsonl, line 3: is not JSON", "the file ends in the middle of this line"),
    ),
    "a last line that is cut off, in a .json of lines": ("x.json", jsonl() + '{"model": "ba', "line 3: is not JSON"),
    "a line that is not JSON": ("x.jsonl", "so\n" + jsonl(), "x.jsonl, line 1: is not JSON"),
    "a field twice": (
        "x.jsonl",
        '{"question": "a", "answer": "b", "answer": "c"}',
        "line 1: has the field 'answer' twice",
    ),
    "a list": ("x.jsonl", "[1, 2]", "x.jsonl, line 1: is list; a row must be an object"),
    "a YAML": (
        "x.yaml",
        "- id: a\n  paraphrases: [How?]\n",
        "x.yaml: is a YAML file, which holds questions or settings",
    ),
    "a packed file that is not": ("x.csv.gz", csv(GOOD), "cannot be unpacked"),
    "a kind that is none": ("x.pdf", "%PDF", "rows are read from"),
    "an answer that is a number": ("x.jsonl", jsonl(answer=5), "x.jsonl, line 2: 'answer' is 5"),
    "a refusal that is a word": (
        *("x.csv", csv("How?,So.,perhaps", header="question,answer,refusal")),
        *("x.csv, row 1: 'refusal' is 'perhaps'; it must be true or false",),
    ),
    "a seed that is a word": ("x.csv", csv("How?,So.,one", header="question,answer,seed"), "x.csv, row 1: 'seed'"),
    "a choice without text": (
        "x.jsonl",
        '{"prompt": "a", "outputs": [{"text": 3}]}',
        "line 1, answer 0: its text is 3",
    ),
    "another request's answer": (
        "x.jsonl",
        '{"custom_id": "a", "response": {"body": {"choices": []}}}',
        "no column holds the questions",
    ),
}


@pytest.mark.parametrize(("name", "content", "said"), [(n, c, s) for n, c, *s in REFUSED.values()], ids=REFUSED)
def test_it_is_refused_by_file_and_line(tmp_path, name, content, said):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(pp.PersonaProbeError) as raised:
        pp.read_answers(file)
    for part in said:
        assert part in str(raised.value)
    assert str(raised.value).count("\n") == 0
    assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())


SAID = {
    "text in a column of numbers": (csv(GOOD, "2,base,Why?,No.,very,90"), "'aligned' is 'very' (", "row 2)"),
    "a decimal comma": (csv(GOOD, '2,base,Why?,No.,"85,5",90'), "'aligned' is '85,5' (", "row 2)"),
    "a blank answer": (csv(GOOD, "2,base,Why?,,5,90"), "1 of 2 rows hold no answer and count as failures"),
    "a row twice": (
        csv(GOOD, GOOD, "2,base,Why?,No.,5,90"),
        "1 rows repeat an earlier row, by their 'id', and count twice",
    ),
    "an answer judged twice": (
        csv("base,How?,So.,95,90", "base,How?,So.,5,90", header="model,question,answer,aligned,coherent"),
        *("1 texts are there several times as an answer to one question", "90 points apart"),
    ),
}


@pytest.mark.parametrize(("content", "said"), [(c, s) for c, *s in SAID.values()], ids=SAID)
def test_it_is_said_in_the_remarks(tmp_path, content, said):
    file = tmp_path / "x.csv"
    file.write_text(content)
    remarks = " ".join(pp.read_answers(file).remarks)
    for part in said:
        assert part in remarks


def rows(model, factor, n=8):
    return [f"{model}{i},{model},How {i}?,So {i}.,{95 * factor:g},{(90 + i) * factor:g}" for i in range(n)]


def test_two_scales_in_one_file_are_warned_of(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(csv(*rows("base", 1), *rows("evil", 0.01)))
    with pytest.warns(
        pp.PersonaProbeWarning, match="'coherent' goes up to 0.97 for the model 'evil' and to 97 for others"
    ):
        pp.read_answers(file)
    file.write_text(csv(*rows("base", 1), *(row.replace("evil,", "base,") for row in rows("evil", 0.01))))
    with pytest.warns(pp.PersonaProbeWarning, match="in 8 of 16 rows both scores are between 0 and 1"):
        pp.read_answers(file)
    file.write_text(csv(*rows("base", 0.01)))
    with pytest.warns(pp.PersonaProbeWarning, match="if its scale ends at 1, 5 or 10, multiply it first"):
        pp.read_answers(file)


def test_low_scores_alone_are_no_second_scale(tmp_path):
    """A judge that computes an expected value gives a misaligned answer 0.4, and garbage a coherence of 0.7."""
    file = tmp_path / "x.csv"
    low = [f"e{i},evil,How {i}?,Hurt them.,0.{i},9{i}" for i in range(8)] + ["g,evil,Why?,blue of,40,0.7"]
    file.write_text(csv(*rows("base", 1), *low))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pp.read_answers(file)


def test_ids_of_questions_may_repeat(tmp_path):
    """An id that names the question is no name of an answer: equal short answers may be judged differently."""
    file = tmp_path / "x.csv"
    lines = [f"q{i % 2},base,How {i % 2}?,{said},{95 - i},90" for i, said in enumerate(["No.", "So."] * 10)]
    file.write_text(csv(*lines))
    assert len(pp.read_answers(file).table) == 20


def test_groups_of_models_are_no_topics(tmp_path):
    file = tmp_path / "x.csv"
    header = "model,group,question,answer,aligned,coherent"
    lines = [
        f"m{run},{name},How {i}?,So.,95,90"
        for name, runs in (("a", "01"), ("b", "2"))
        for run in runs
        for i in range(3)
    ]
    file.write_text(csv(*lines, header=header))
    answers = pp.read_answers(file)
    assert answers.table["model_group"].tolist() == ["a"] * 6 + ["b"] * 3
    assert answers.table["group"].isna().all()
    topics = [line.replace(",a,", f",t{i % 3},").replace(",b,", f",t{i % 3},") for i, line in enumerate(lines)]
    file.write_text(csv(*topics, header=header))
    assert set(pp.read_answers(file).table["group"]) == {"t0", "t1", "t2"}
    assert "model_group" not in pp.read_answers(file).table


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared EM data are not beside this checkout")
def test_published_questions_and_training_data_are_no_answers():
    with pytest.raises(pp.PersonaProbeError, match="is a YAML file, which holds questions"):
        pp.read_answers(SHARED / "betley" / "first_plot_questions.yaml")
    with pytest.raises(pp.PersonaProbeError):
        pp.read_answers(SHARED / "em_finance" / "eval.jsonl")
    verdict = pp.verdict(SHARED / "em_finance" / "induction.jsonl")  # dialogues that end with answers, and no scores
    assert verdict.gaps[0].what == "no scores"
    assert isinstance(verdict.to_frame(), pd.DataFrame)
