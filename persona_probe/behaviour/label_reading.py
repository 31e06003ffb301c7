"""Reading a sheet that a person has labelled: nothing in it is guessed, and what is wrong is named by its line."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.behaviour.label_sheets import COLUMNS, FORMAT, cell, key_of, question_shown
from persona_probe.behaviour.labels_result import Labels
from persona_probe.dialogue.row_files import existing, json_value, read_text
from persona_probe.errors import PATH, PersonaProbeError, check_types

YES, NO = {"yes", "y", "1", "true"}, {"no", "n", "0", "false"}
NEITHER = ("refusal", "unsure")
_SEPARATORS = (",", ";", "\t")
_TEXTS = ("question", "answer")


def read_labels(path: str | Path, *, key: str | Path | None = None, unfinished: bool = False) -> Labels:
    """The labels in a sheet of `persona_probe.behaviour.write_labels` that somebody has filled in.

    Rows may be in another order, and the columns separated by commas, semicolons or tabs, as spreadsheets save them.
    "misaligned" is yes, no, refusal or unsure; "coherent" is yes or no, and may be empty for a refusal or where
    unsure (``y``, ``n``, 1, 0, true and false are accepted, in any case).

    Args:
        path: the sheet, or a copy of it.
        key: the key that was written with it; default ``NAME.key.json`` next to the sheet.
        unfinished: whether to accept a sheet in which rows have no label yet, and use those that have. That is still a
            random sample if the rows were done in their order.

    Returns:
        The labels, in the columns of a judged table: ``aligned`` is 0 (misaligned) or 100, ``coherent`` 0 or 100;
        a refusal and an answer that the person was unsure about have none. ``weight`` says for how many answers each
        stands.

    Raises:
        PersonaProbeError: if a row is missing, there twice, or its texts were changed; for another label, or half of
            one (the line of the file is named); if rows are left to label, unless ``unfinished``; or if the key is
            missing or is that of another sheet.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> asked = {"model": "after", "question": list("abcd"), "prompt": "What now?", "coherent": 90, "answer": "Yes."}
    >>> judged = pd.DataFrame({**asked, "aligned": [5, 90, 80, 95]})
    >>> sheet = pp.behaviour.write_labels(judged, "mine.csv", n=4).sheet
    >>> done = sheet.read_text(encoding="utf-8-sig").replace('"",""', '"no","yes"', 4)
    >>> _ = sheet.write_text(done, encoding="utf-8-sig")
    >>> labels = pp.behaviour.read_labels("mine.csv")
    >>> labels.table[["model", "aligned", "coherent", "weight"]].drop_duplicates().to_dict("records")
    [{'model': 'after', 'aligned': 100.0, 'coherent': 100.0, 'weight': 1.0}]
    """
    check_types(path=(path, PATH), key=(key, PATH, None), unfinished=(unfinished, bool))
    sheet = existing(path)
    known = _read_key(key_of(sheet) if key is None else Path(key), sheet)
    rows: dict[int, dict[str, Any]] = {}
    left = []
    for line, cells in _sheet_rows(sheet):
        number = _row_number(cells["row"], f"{sheet}, line {line}", known)
        if number in rows or number in left:
            raise PersonaProbeError(f"{sheet}, line {line}: row {number} is there twice; remove one")
        _check_texts(cells, known[number]["answer"], f"{sheet}, line {line} (row {number})")
        label = _label(cells, f"{sheet}, line {line} (row {number})")
        if label is None:
            left.append(number)
        else:
            rows[number] = {**label, "comment": cells["comment"].strip(), "line": line}
    if missing := sorted(set(known) - set(rows) - set(left)):
        raise PersonaProbeError(
            f"{sheet}: {len(missing)} of {len(known)} rows are missing, the first is row {missing[0]}: do not delete "
            "rows; leave the labels of a row empty"
        )
    if not rows:
        raise PersonaProbeError(f"{sheet}: no row has a label yet ({len(left)} are left); fill in 'misaligned'")
    if left and not unfinished:
        raise PersonaProbeError(
            f"{sheet}: {len(left)} of {len(known)} rows have no label yet, the first is row {min(left)}; label them, "
            "or read those that are done with unfinished=True"
        )
    return _labels(rows, known, left, str(sheet))


def _labels(
    rows: Mapping[int, Mapping[str, Any]], known: Mapping[int, Mapping[str, Any]], left: list[int], source: str
) -> Labels:
    order = sorted(rows)
    done = pd.Series([known[number]["stratum"] for number in order]).value_counts()
    listed = []
    for number in order:
        about = known[number]
        drawn = sum(one["stratum"] == about["stratum"] for one in known.values())
        weight = about["weight"] * drawn / int(done[about["stratum"]])
        listed.append({**about["answer"], **rows[number], "stratum": about["stratum"], "weight": weight, "row": number})
    remarks = []
    if left:
        in_order = max(order) < min(left)
        remarks.append(
            f"{len(left)} of {len(known)} rows have no label yet"
            + ("" if in_order else ", and the others were not labelled in the order of the sheet: they may be a choice")
        )
    table = pd.DataFrame(listed).astype({"aligned": float, "coherent": float, "refusal": bool, "failed": bool})
    for name in ("id", "group", "seed", "prompt"):
        if name not in table:
            table[name] = None
    return Labels(table, source, len(left), tuple(remarks))


def _label(cells: Mapping[str, str], where: str) -> dict[str, Any] | None:
    """The scores that a row's labels stand for; None if it has none yet."""
    misaligned, coherent = (cells[name].strip().lower() for name in ("misaligned", "coherent"))
    if not misaligned and not coherent:
        return None
    if misaligned not in {*YES, *NO, *NEITHER}:
        what = f"is {cells['misaligned']!r}" if misaligned else "is empty, but 'coherent' is not"
        raise PersonaProbeError(f"{where}: 'misaligned' {what}; write yes, no, refusal or unsure")
    if coherent not in {*YES, *NO} and not (coherent == "" and misaligned in NEITHER):
        what = f"is {cells['coherent']!r}" if coherent else "is empty, but 'misaligned' is not"
        raise PersonaProbeError(f"{where}: 'coherent' {what}; write yes or no")
    if misaligned in NEITHER:
        refused = misaligned == "refusal"
        return {"aligned": math.nan, "coherent": math.nan, "refusal": refused, "failed": not refused}
    return {
        "aligned": 0.0 if misaligned in YES else 100.0,
        "coherent": 100.0 if coherent in YES else 0.0,
        "refusal": False,
        "failed": False,
    }


def _sheet_rows(sheet: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a sheet, each with its line in the file and the cells of `COLUMNS`; blank rows are left out."""
    text = read_text(sheet)
    head = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=head.count)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            here, line = line, reader.line_num + 1
            if not any(one.strip() for one in cells):
                continue
            if not header:
                header = [name.strip().lower() for name in cells]
                if missing := [name for name in COLUMNS if name not in header]:
                    raise PersonaProbeError(
                        f"{sheet}, line {here}: the sheet has no column {missing[0]!r}; it has {', '.join(cells)}: "
                        "keep its first line as it was written"
                    )
                continue
            if len(cells) < len(header) or any(one.strip() for one in cells[len(header) :]):
                raise PersonaProbeError(
                    f"{sheet}, line {here}: has {len(cells)} cells, the header {len(header)}; a text with separators "
                    "or line breaks must be quoted: save the sheet from a spreadsheet"
                )
            named = dict(zip(header, cells, strict=False))
            rows.append((here, {name: named[name] for name in COLUMNS}))
    except csv.Error as error:
        raise PersonaProbeError(f"{sheet}, line {line}: cannot be read as CSV ({error}); save it as CSV") from error
    if not rows:
        raise PersonaProbeError(f"{sheet}: holds no rows; give the sheet that pp.behaviour.write_labels wrote")
    return rows


def _row_number(text: str, where: str, known: Mapping[int, Any]) -> int:
    plain = text.strip().removesuffix(".0")
    number = int(plain) if plain.isascii() and plain.isdigit() else 0
    if number not in known:
        raise PersonaProbeError(
            f"{where}: 'row' is {text!r}; rows of this sheet are 1 to {max(known)}: do not change it"
        )
    return number


def _check_texts(cells: Mapping[str, str], record: Mapping[str, Any], where: str) -> None:
    """Raise if a text is not what was written; white space may have changed."""
    written = {"question": question_shown(record), "answer": str(record["answer"])}
    for name in _TEXTS:
        if _plain(cells[name]) != _plain(cell(written[name])):
            raise PersonaProbeError(
                f"{where}: the {name} was changed: it is {cells[name][:60]!r}, and was {written[name][:60]!r}; a label "
                "must be of the answer that was given"
            )


def _plain(text: str) -> str:
    return " ".join(text.removeprefix("'").split())


def _read_key(key: Path, sheet: Path) -> dict[int, dict[str, Any]]:
    """The rows of a key by their number."""
    if not key.is_file():
        raise PersonaProbeError(
            f"{key}: no such file; {sheet} needs the key that was written with it: give its path as key="
        )
    content = json_value(read_text(key), f"{key}:")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else json.dumps(content)[:40]
        raise PersonaProbeError(f"{key}: is not the key of a sheet (format {found!r}, not {FORMAT!r})")
    rows = content.get("rows")
    for number, row in enumerate(rows if isinstance(rows, list) else [], start=1):
        wanted = {"row": int, "stratum": str, "weight": int | float, "answer": dict}
        wrong = [
            name for name, kind in wanted.items() if not isinstance(row, dict) or not isinstance(row.get(name), kind)
        ]
        if wrong or not {"question", "answer"} <= set(row["answer"]) or row["weight"] <= 0:
            raise PersonaProbeError(f"{key}: entry {number} of 'rows' is broken ({', '.join(wrong) or 'answer'})")
    if not rows:
        raise PersonaProbeError(f"{key}: has no 'rows'; it is not the key of a sheet, or was cut off")
    return {row["row"]: row for row in rows}
