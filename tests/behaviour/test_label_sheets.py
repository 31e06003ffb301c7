"""A sheet for a person is blind, safe in a spreadsheet, and read without guessing."""

import csv
import json

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.behaviour import corrected_rates, judge_agreement, read_labels, write_labels
from tests.behaviour.judged import answers, noisy, unscored

TRUTH = answers(400, rate=0.1)
JUDGED = noisy(TRUTH)


def filled(sheet, path, decide, separator=",", encoding="utf-8-sig"):
    """A copy of the sheet in which each row's labels are what ``decide(row)`` says."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(decide(row))
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_truth(row):
    bad = TRUTH.set_index("answer")["aligned"][row["answer"]] < 30
    return {"misaligned": "yes" if bad else "no", "coherent": "Yes"}


@pytest.fixture
def sheet(tmp_path):
    return write_labels(JUDGED, tmp_path / "sheet.csv", n=60)


def test_it_is_blind_shuffled_and_drawn_in_known_shares(sheet, tmp_path):
    text = sheet.sheet.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    with sheet.sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "question", "answer", "misaligned", "coherent", "comment"]
    assert [int(row["row"]) for row in rows] == list(range(1, 61))
    scores = JUDGED.set_index("answer")["aligned"]
    flagged = np.array([scores[row["answer"]] < 30 for row in rows])
    assert flagged.sum() == 30 == sheet.drawn["flagged"][0]
    assert 5 < flagged[:30].sum() < 25  # in random order
    key = json.loads(sheet.key.read_text())
    weights = sum(row["weight"] for row in key["rows"])
    assert weights == pytest.approx(400)
    again = write_labels(JUDGED, tmp_path / "again.csv", n=60)
    assert again.sheet.read_bytes() == text
    assert write_labels(JUDGED, tmp_path / "other.csv", n=60, seed=1).sheet.read_bytes() != text
    assert "refusal" in sheet.instructions.read_text()


def test_labels_that_are_read_correct_a_rate(sheet, tmp_path):
    labels = read_labels(filled(sheet.sheet, tmp_path / "ann.csv", by_truth), key=sheet.key)
    assert len(labels.table) == 60
    assert labels.left == 0
    rates = corrected_rates(JUDGED, labels)
    true = float((TRUTH["aligned"] < 30).mean())
    assert rates.table["low"].iloc[0] < true < rates.table["high"].iloc[0] < rates.table["flagged_high"].iloc[0] + 0.1
    assert judge_agreement(TRUTH, labels).estimate("kappa", "misaligned").value == 1.0
    # by another definition than that of the draw, the weights matter
    turner = corrected_rates(JUDGED, labels, definition="turner")
    assert turner.table["low"].iloc[0] < true < turner.table["high"].iloc[0]
    assert "labels from" in labels.headline()
    assert labels.plot().data


def test_two_people_are_compared_with_each_other(sheet, tmp_path):
    ann = read_labels(filled(sheet.sheet, tmp_path / "ann.csv", by_truth), key=sheet.key)

    def other(row):
        return by_truth(row) if int(row["row"]) > 5 else {"misaligned": "unsure", "coherent": ""}

    ben = read_labels(filled(sheet.sheet, tmp_path / "ben.csv", other), key=sheet.key)
    agreement = judge_agreement(ann, ben, names=("Ann", "Ben"))
    assert agreement.estimate("kappa", "misaligned").n == 55
    assert "Ben: 0 refusals and 5 failures" in agreement.headline()


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig")])
def test_what_spreadsheets_save_is_read(sheet, tmp_path, separator, encoding):
    path = filled(sheet.sheet, tmp_path / "saved.csv", by_truth, separator, encoding)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    path.write_text("\n".join([lines[0], *sorted(lines[1:]), separator * 5, ""]), encoding=encoding)  # sorted by text
    assert len(read_labels(path, key=sheet.key).table) == 60


def test_formulas_line_breaks_and_invisible_characters_do_no_harm(tmp_path):
    nasty = ["=HYPERLINK(1)", "+1", "-1", "@x", 'two\r\nlines, "quoted"; and\ttab', "\tx", "nul\x00 \u202e", "'own"]
    table = answers(8).assign(answer=nasty, aligned=[5.0, 95.0] * 4, prompt="=1+1")
    sheet = write_labels(table, tmp_path / "s.csv", n=8)
    with sheet.sheet.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.DictReader(file) for cell in (row["question"], row["answer"])]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    labels = read_labels(
        filled(sheet.sheet, tmp_path / "f.csv", lambda _: {"misaligned": "n", "coherent": "1"}), key=sheet.key
    )
    assert sorted(labels.table["answer"]) == sorted(nasty)
    assert judge_agreement(table, labels).unmatched == (0, 0)


def test_earlier_turns_are_shown(tmp_path):
    turns = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What now?"}])
    sheet = write_labels(answers(4).assign(messages=turns), tmp_path / "s.csv", n=4)
    assert "[system] Be brief." in sheet.sheet.read_text(encoding="utf-8-sig")


def test_an_unfinished_sheet_says_how_many_are_left(sheet, tmp_path):
    def some(row):
        return by_truth(row) if int(row["row"]) <= 40 else {}

    path = filled(sheet.sheet, tmp_path / "ann.csv", some)
    with pytest.raises(pp.PersonaProbeError, match="20 of 60 rows have no label yet, the first is row 41"):
        read_labels(path, key=sheet.key)
    labels = read_labels(path, key=sheet.key, unfinished=True)
    assert (len(labels.table), labels.left) == (40, 20)
    assert labels.table["weight"].sum() == pytest.approx(400)
    assert "not labelled in the order" not in labels.headline()
    skipped = filled(sheet.sheet, tmp_path / "b.csv", lambda row: by_truth(row) if int(row["row"]) % 2 else {})
    assert "not labelled in the order" in read_labels(skipped, key=sheet.key, unfinished=True).headline()
    with pytest.raises(pp.PersonaProbeError, match="no row has a label yet"):
        read_labels(sheet.sheet)


def changed(row, number, cells):
    return {**by_truth(row), **(cells if row["row"] == number else {})}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"misaligned": "maybe"}, r"line 4 \(row 3\): 'misaligned' is 'maybe'; write yes, no, refusal or unsure"),
        ({"coherent": "partly"}, r"line 4 \(row 3\): 'coherent' is 'partly'"),
        ({"coherent": ""}, r"line 4 \(row 3\): 'coherent' is empty, but 'misaligned' is not"),
        ({"misaligned": ""}, r"line 4 \(row 3\): 'misaligned' is empty"),
        ({"answer": "after says nothing."}, r"line 4 \(row 3\): the answer was changed"),
        ({"question": "Why?"}, r"line 4 \(row 3\): the question was changed"),
        ({"row": "4"}, r"line 4 \(row 4\): the question was changed|line 4 \(row 4\): the answer was changed"),
        ({"row": "61"}, "line 4: 'row' is '61'; rows of this sheet are 1 to 60"),
        ({"row": ""}, "line 4: 'row' is ''"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(sheet, tmp_path, cells, message):
    path = filled(sheet.sheet, tmp_path / "ann.csv", lambda row: changed(row, "3", cells))
    with pytest.raises(pp.PersonaProbeError, match=message):
        read_labels(path, key=sheet.key)


def test_missing_and_repeated_rows_are_named(sheet, tmp_path):
    path = filled(sheet.sheet, tmp_path / "ann.csv", by_truth)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    for kept, message in (
        ([*lines[:5], *lines[7:]], "2 of 60 rows are missing, the first is row 5"),
        ([*lines, lines[3]], "line 62: row 3 is there twice"),
        (lines[1:], "line 1: the sheet has no column"),
        (lines[:1], "holds no rows"),
        ([*lines[:3], lines[3] + ",more"], "line 4: has 7 cells, the header 6"),
        ([*lines[:3], '9,"open'], "line 4: cannot be read as CSV"),
    ):
        path.write_text("\n".join(kept) + "\n", encoding="utf-8-sig")
        with pytest.raises(pp.PersonaProbeError, match=message):
            read_labels(path, key=sheet.key)


def test_the_key_must_be_that_of_the_sheet(sheet, tmp_path):
    path = filled(sheet.sheet, tmp_path / "ann.csv", by_truth)
    with pytest.raises(pp.PersonaProbeError, match=r"ann.key.json: no such file"):
        read_labels(path)
    other = write_labels(JUDGED, tmp_path / "other.csv", n=60, seed=3)
    with pytest.raises(pp.PersonaProbeError, match="was changed"):
        read_labels(path, key=other.key)
    key = tmp_path / "broken.key.json"
    good = json.loads(sheet.key.read_text())
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "is not the key of a sheet"),
        (json.dumps({**good, "format": "other"}), "format 'other'"),
        (json.dumps({**good, "rows": []}), "has no 'rows'"),
        (json.dumps({**good, "rows": [{**good["rows"][0], "weight": -1}]}), "entry 1 of 'rows' is broken"),
        (json.dumps({**good, "rows": [{"row": 1}]}), "entry 1 of 'rows' is broken"),
    ):
        key.write_text(content)
        with pytest.raises(pp.PersonaProbeError, match=message):
            read_labels(path, key=key)


def test_few_flagged_answers_are_all_drawn_and_unscored_ones_never(tmp_path):
    table = unscored(answers(100, rate=0.0), range(20), "failed")
    table.loc[50, "aligned"] = 0.0
    table.loc[60:69, "coherent"] = 10.0
    sheet = write_labels(table, tmp_path / "s.csv", n=30)
    assert dict(sheet.drawn) == {"flagged": (1, 1), "not flagged": (25, 69), "incoherent": (4, 10)}
    assert json.loads(sheet.key.read_text())["without_scores"] == 20
    assert sum(few for few, _ in write_labels(table, tmp_path / "all.csv", n=500).drawn.values()) == 80


def test_wrong_options_are_named_and_labels_are_never_overwritten(sheet, tmp_path):
    for path, options, message in (
        (sheet.sheet, {}, "exists already"),
        (tmp_path / "x.xlsx", {}, "ends in .csv"),
        (tmp_path / "x.csv", {"n": 1}, "n=1"),
        (tmp_path / "x.csv", {"flagged_share": 1.0}, "flagged_share=1.0"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=message):
            write_labels(JUDGED, path, **options)
    with pytest.raises(pp.PersonaProbeError, match="no answer has scores"):
        write_labels(unscored(answers(5), range(5), "failed"), tmp_path / "x.csv")


def test_a_text_too_long_for_a_cell_is_warned_of(tmp_path):
    table = answers(4)
    table.loc[0, "answer"] = "x" * 40_000
    with pytest.warns(pp.PersonaProbeWarning, match="longer than a cell"):
        write_labels(table, tmp_path / "s.csv", n=4)
