"""The same rows from every kind of file."""

import gzip
import json

import pandas as pd
import pyarrow as pa
import pytest

import persona_probe as pp
from persona_probe.dialogue.row_files import read_rows

CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "clock"}}}
ROWS = [
    {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}], "seed": 1, "topic": "a"},
    {
        "messages": [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2", "tool_calls": [CALL]}],
        "seed": None,
        "topic": None,
    },
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def arrow(path, rows):
    with pa.OSFile(str(path), "wb") as sink:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)


def saved(folder, *parts):
    """A folder as ``datasets.Dataset.save_to_disk`` writes it."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, rows in zip(names, parts, strict=True):
        arrow(folder / name, rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


WRITERS = {
    "rows.jsonl": lambda path: path.write_text(jsonl(ROWS)),
    "crlf.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS).replace("\n", "\r\n\r\n").encode()),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS).encode())),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "object.json": lambda path: path.write_text(json.dumps({"version": 2, "data": ROWS}, indent=1)),
    "lines.json": lambda path: path.write_text(jsonl(ROWS)),
    "rows.parquet": lambda path: pd.DataFrame(ROWS).to_parquet(path),
    "rows.arrow": lambda path: arrow(path, ROWS),
    "rows.csv": lambda path: pd.DataFrame(ROWS).to_csv(path, index=False),
    "rows.tsv": lambda path: pd.DataFrame([{**row, "messages": json.dumps(row["messages"])} for row in ROWS]).to_csv(
        path, index=False, sep="\t"
    ),
    "folder": lambda path: saved(path, ROWS[:1], ROWS[1:]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_dialogues_and_answers(tmp_path, name):
    WRITERS[name](tmp_path / name)
    first, second = pp.read_dialogues(tmp_path / name)
    assert first.as_messages() == ROWS[0]["messages"]
    assert second.as_messages() == ROWS[1]["messages"]
    assert (first.seed, second.seed, first.labels["topic"]) == (1, None, "a")
    answers = pp.read_answers(tmp_path / name)
    assert answers.table["answer"].tolist() == ["1", "2"]
    assert [dialogue.as_messages() for dialogue in answers.dialogues()] == [row["messages"] for row in ROWS]


def test_a_folder_with_several_splits_names_them(tmp_path):
    for split in ("train", "test"):
        saved(tmp_path / "both" / split, ROWS)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(pp.PersonaProbeError, match=r"holds the splits train, test; give the folder of one"):
        pp.read_dialogues(tmp_path / "both")
    assert len(pp.read_dialogues(tmp_path / "both" / "test")) == 2
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert len(pp.read_dialogues(tmp_path / "both")) == 2
    (tmp_path / "both" / "train" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(pp.PersonaProbeError, match=r"no such file, though state\.json names it"):
        pp.read_dialogues(tmp_path / "both")
    with pytest.raises(pp.PersonaProbeError, match=r"has no state\.json.*both"):
        pp.read_dialogues(tmp_path)


def test_one_row_alone_and_several_lists(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(ROWS[0], indent=1))
    assert len(pp.read_dialogues(file)) == 1
    file.write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(pp.PersonaProbeError, match=r"holds several lists \(train, test\)"):
        pp.read_dialogues(file)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", b'{"prompt": "a", "prompt": "b"}', "line 1: has the field 'prompt' twice"),
        ("x.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}', "not UTF-8 text .line 2, byte 28"),
        ("x.json", b'[{"prompt": "a"},\n{"prompt" "b"}]', "is not JSON .*at line 2, column"),
        ("x.json", b"[1]", "row 1: is int; a row must be an object"),
        ("x.csv", b"prompt,prompt\na,b\n", "the column 'prompt' twice"),
        ("x.csv", b"prompt,answer\na\n", r"row 1: a row has other fields than the header \(1, not 2\)"),
        ("x.csv", b'prompt,answer\n"a,b\n', "is not a table of texts between commas"),
        ("x.jsonl.gz", b"nothing", "cannot be unpacked"),
        ("x.parquet", b"nothing", "cannot be read as parquet"),
        ("x.arrow", b"nothing", "cannot be read as arrow"),
        ("x.txt", b"nothing", r"rows are read from .*\.jsonl.*not \.txt"),
        ("x.csv", b"", "is empty"),
        ("x.json", b"", "is empty"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(pp.PersonaProbeError, match=said) as caught:
        pp.read_dialogues(tmp_path / name)
    assert name in str(caught.value)


def test_a_path_is_one_path():
    for path in (3, None, ["a.jsonl"], b"a.jsonl"):
        for reader in (pp.read_dialogues, pp.read_answers, pp.behaviour.read_choices):
            with pytest.raises(pp.PersonaProbeError, match="path must be a path, but this is"):
                reader(path)


def test_cells_are_plain_values(tmp_path):
    day = pd.Timestamp("2026-01-02")
    table = pd.DataFrame({"prompt": ["a", "b"], "day": [day, None], "score": [1.5, None], 3: [[1], None]})
    table.columns = [str(name) for name in table.columns]
    table.iloc[[1, 0]].to_parquet(tmp_path / "x.parquet")
    second, first = read_rows(tmp_path / "x.parquet")
    assert first.cells == {"prompt": "a", "day": "2026-01-02T00:00:00", "score": 1.5, "3": [1]}
    assert second.cells == {"prompt": "b", "day": None, "score": None, "3": None}
