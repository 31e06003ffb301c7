"""Rows of files, whatever their kind: JSON lines, JSON, CSV, Parquet, and folders of saved data sets."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.dialogue.half_characters import half_in, mended
from persona_probe.errors import PATH, PersonaProbeError, check_types

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")


SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")
"""Columns that hold a system prompt."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CUT_OFF = "; the file ends in the middle of this line, as if its writing was stopped: finish the line or remove it"


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
        where: file and line (or row), for errors.
        cells: the columns, in JSON's own types; what is not a number (NaN) is None.
        number: the line or row, counted from 1.
        mended: names of the columns in which half a character was replaced.
    """

    where: str
    cells: Mapping[str, Any]
    number: int
    mended: tuple[str, ...] = ()


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file, or of the folder of a data set that ``save_to_disk`` wrote.

    Args:
        path: a file of one of `KINDS` (text files may end in ``.gz``), or such a folder. A ``.json`` file holds a list
            of rows, an object with one such list, one row, or one row per line.

    Raises:
        PersonaProbeError: if it is missing, empty, of another kind or broken; the line or row is named.
    """
    place = as_path(path)
    if place.is_dir():
        from persona_probe.dialogue.arrow_files import folder_records

        rows = list(_numbered(place, folder_records(place), "row"))
    else:
        rows = list(_rows(existing(place)))
    if not rows:
        raise PersonaProbeError(f"{path}: is empty; it needs at least one row")
    return rows


def existing(path: str | Path) -> Path:
    """``path``, if there is a file.

    Raises:
        PersonaProbeError: if there is none.
    """
    file = as_path(path)
    if not file.is_file():
        raise PersonaProbeError(f"{path}: is a folder; give a file" if file.is_dir() else f"{path}: no such file")
    return file


def as_path(path: str | Path) -> Path:
    """``path`` as a path.

    Raises:
        PersonaProbeError: if it is neither a text nor a path.
    """
    check_types(path=(path, PATH))
    return Path(path)


def kind_of(file: Path) -> str:
    """A file's ending in small letters, without ``.gz``."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def read_text(file: Path) -> str:
    """A file's text, unpacked if its name ends in ``.gz``.

    Raises:
        PersonaProbeError: if it is not UTF-8, or cannot be unpacked.
    """
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise PersonaProbeError(f"{file}: cannot be unpacked ({error}); is it complete?") from error
    # Texts in UTF-16 without its mark are UTF-8 too, with a NUL after every letter.
    if content[:2] in _UTF16 or content.count(b"\0") > len(content) // 10:
        raise PersonaProbeError(
            f"{file}: is not UTF-8 text but seems to be UTF-16 (Excel's 'Unicode Text'); save it as UTF-8, or convert "
            "it: iconv -f UTF-16 -t UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        raise PersonaProbeError(
            f"{file}: is not UTF-8 text (line {line}, byte {error.start} is 0x{byte:02X}, as in Latin-1 or "
            "Windows-1252); save it as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Each line of a JSONL file that is not blank, with its place (``FILE, line N``).

    Raises:
        PersonaProbeError: if a line is not JSON, or an object has a field twice; the first such line is named.
    """
    for number, line, advice in _object_lines(read_text(file)):
        yield f"{file}, line {number}", _parsed(line, f"{file}, line {number}:", advice)


def json_value(text: str, where: str) -> Any:
    """The value that a text holds as JSON.

    Raises:
        PersonaProbeError: if it is not JSON, or an object in it has a field twice.
    """
    return _parsed(text, where, "")


def _rows(file: Path) -> Iterator[Row]:
    kind = kind_of(file)
    if kind == ".jsonl":
        for number, line, advice in _object_lines(read_text(file)):
            where = f"{file}, line {number}"
            yield _row(where, _parsed(line, f"{where}:", advice), number)
    elif kind == ".json":
        yield from _from_json(file)
    elif kind in (".csv", ".tsv"):
        for number, (where, record) in enumerate(_csv_records(file, "," if kind == ".csv" else "\t"), start=1):
            yield _row(where, record, number)
    elif kind in (".parquet", ".arrow"):
        from persona_probe.dialogue.arrow_files import file_records

        yield from _numbered(file, file_records(file), "row")
    else:
        raise PersonaProbeError(
            f"{file}: rows are read from {', '.join(KINDS)} files and from folders of saved data sets, not "
            f"{file.suffix or 'this'}"
        )


def _numbered(file: Path, records: Iterator[Mapping[Any, Any]], unit: str) -> Iterator[Row]:
    for number, record in enumerate(records, start=1):
        yield _row(f"{file}, {unit} {number}", record, number)


def _row(where: str, record: Any, number: int) -> Row:
    if not isinstance(record, Mapping):
        raise PersonaProbeError(f"{where}: is {type(record).__name__}; a row must be an object with its fields")
    cells, broken = {}, []
    for name, value in record.items():
        name, value = str(name), plain_cell(value)
        if half_in(name) or half_in(value):
            name, value = mended(name), mended(value)
            broken.append(name)
        cells[name] = value
    return Row(where, cells, number, tuple(broken))


def plain_cell(value: Any) -> Any:
    """``value`` in JSON's own types: arrays become lists, dates and bytes text, and NaN None."""
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, Mapping):
        return {str(name): plain_cell(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_cell(part) for part in value]
    if hasattr(value, "tolist"):
        return plain_cell(value.tolist())
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else str(value)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Split at newlines alone: a text may contain any of the other line breaks that str.splitlines knows.
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _object_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines that hold an object each, and what to do if one does not."""
    lines = list(_lines(text))
    for number, line in lines:
        cut_off = number == lines[-1][0] and line.lstrip().startswith("{") and not line.rstrip().endswith("}")
        yield number, line, _CUT_OFF if cut_off else "; write one object per line"


def _from_json(file: Path) -> Iterator[Row]:
    text = read_text(file)
    lines = list(_lines(text))
    if len(lines) > 1 and lines[0][1].strip().startswith("{") and _is_json(lines[0][1]):
        for number, line, advice in _object_lines(text):
            where = f"{file}, line {number}"
            yield _row(where, _parsed(line, f"{where}:", advice), number)
        return
    if not lines:
        return
    content = _parsed(text, f"{file}:", "")
    lists = {}
    if isinstance(content, dict):
        lists = {name: value for name, value in content.items() if _is_list_of_rows(value)}
    if lists and not any(isinstance(turn, dict) and _is_turn(turn) for value in lists.values() for turn in value):
        if len(lists) > 1:
            raise PersonaProbeError(
                f"{file}: holds several lists ({', '.join(lists)}); save the one to be read as a file of its own"
            )
        ((name, rows),) = lists.items()
        if told := [field for field in SYSTEM if content.get(field)]:
            raise PersonaProbeError(
                f"{file}: has {told[0]!r} ({str(content[told[0]])[:40]!r}) next to the list {name!r}, so its rows "
                "would not be given it; write it into each row, or remove it"
            )
        for number, record in enumerate(rows, start=1):
            yield _row(f"{file}, {name!r}, row {number}", record, number)
    elif isinstance(content, list):
        yield from _numbered(file, iter(content), "row")
    else:
        yield _row(str(file), content, 1)


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _is_turn(row: Mapping[str, Any]) -> bool:
    """Whether this is a message (the list that holds it is then a dialogue), or a choice of a server's response."""
    return bool({"role", "from"} & {*row}) or bool({"message", "text"} & {*row} and {"index", "finish_reason"} & {*row})


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parsed(text: str, where: str, advice: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise PersonaProbeError(f"{where} has the field {twice!r} twice; leave one out")
        return fields

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise PersonaProbeError(f"{where} is not JSON ({error.msg} at {line}column {error.colno}){advice}") from error
    except ValueError as error:  # a number of thousands of digits
        raise PersonaProbeError(f"{where} cannot be read: {error}") from error
    except RecursionError as error:
        raise PersonaProbeError(f"{where} is nested too deeply to be read") from error


def _csv_records(file: Path, separator: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The place of each record (its line too, where texts with line breaks take several lines), and the record."""
    text = read_text(file)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    # Strings, and nothing is read as "missing": an answer may be "NA". Blank lines are not rows.
    lines = _placed(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    separators = "commas" if separator == "," else "tabs"
    try:
        header = [name or f"column {number}" for number, name in enumerate(next(lines, (1, []))[1], start=1)]
        if len(header) == 1 and (other := next((mark for mark in ";\t|," if header[0].count(mark) > 1), None)):
            raise PersonaProbeError(
                f"{file}: has one column, {header[0][:60]!r}: its columns seem to be separated by {other!r}, not by "
                f"{separators}; save it with {separators} between columns"
            )
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise PersonaProbeError(f"{file}: has the column {twice!r} twice; rename one")
        for number, (line, cells) in enumerate(lines, start=1):
            where = f"{file}, row {number}" + ("" if line == number + 1 else f" (line {line})")
            if len(cells) != len(header):
                raise PersonaProbeError(
                    f"{where}: a row has other fields than the header ({len(cells)}, not {len(header)}); "
                    f"quote texts that contain {separators}, quotes or line breaks"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise PersonaProbeError(
            f"{file}: is not a table of texts between {separators} ({error}); a quote in a text is written twice"
        ) from error


def _placed(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row of a CSV reader that is not blank, with the line on which it begins."""
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {begins}: {error}") from error
