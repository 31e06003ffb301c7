import dataclasses
import importlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.dialogue.records import read_records, write_dialogues
from persona_probe.runs.digest import digest, digest_files
from persona_probe.runs.outcome import STORED, read_outcome, write_outcome
from persona_probe.statistics.estimate import Estimate
from tests.conftest import D_MODEL, N_LAYERS

TALK = pp.Dialogue.from_messages(
    [{"role": "user", "content": "How?\u2028\x85"}],
    id="a",
    group="g",
    seed=3,
    labels={"topic": "law", "share": 0.5},
).with_answer("So. \ud800")


@dataclasses.dataclass
class Unnamed:
    number: int


def example(**more):
    return {
        "numbers": np.arange(6.0).reshape(2, 3),
        "names": np.array(["a", "b"], dtype=object),
        "table": pd.DataFrame({"x": [1, 2], "y": ["a", None]}),
        "talk": [TALK, pp.Dialogue.from_text("plain")],
        "by_step": {0: 0.5, 8: pd.DataFrame({"x": [0.1]})},
        "missing": Estimate.missing("nothing to count"),
        **more,
    }


def test_an_outcome_comes_back_as_it_was(tmp_path):
    first = example()
    write_outcome(first, tmp_path / "stored")
    again = read_outcome(tmp_path / "stored")
    assert np.array_equal(again["numbers"], first["numbers"])
    assert list(again["names"]) == ["a", "b"]
    pd.testing.assert_frame_equal(again["table"], first["table"])
    assert again["talk"] == first["talk"]
    assert again["by_step"][0] == 0.5
    assert list(again["by_step"]) == [0, 8]
    assert digest(again) == digest(first)
    assert not list(tmp_path.rglob("*.part"))


def test_names_in_files_are_of_classes_that_exist_and_say_nothing_of_where_they_are(tmp_path):
    for name, place in STORED.items():
        module, _, attribute = place.partition(":")
        made = getattr(importlib.import_module(module), attribute)
        assert dataclasses.is_dataclass(made) or hasattr(made, "load"), name
    assert len(set(STORED.values())) == len(STORED)
    write_outcome(example(), tmp_path / "stored")
    assert "persona_probe" not in (tmp_path / "stored" / "outcome.json").read_text()


def test_a_class_without_a_name_is_not_stored(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="cannot store a Unnamed: give it a name"):
        write_outcome(Unnamed(3), tmp_path / "stored")


def test_the_same_outcome_has_the_same_content_on_disk(tmp_path):
    for name in ("one", "two"):
        write_outcome(example(), tmp_path / name)
    assert digest_files(tmp_path / "one") == digest_files(tmp_path / "two")
    write_outcome(example(nothing="something"), tmp_path / "two")
    assert digest_files(tmp_path / "one") != digest_files(tmp_path / "two")


def test_directions_and_activations_come_back(tmp_path, llama):
    plain = pp.Dialogue.from_messages([{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}])
    read = pp.capture(llama, [plain.with_system("Be kind."), plain])
    direction = pp.Direction.from_vectors(llama, np.ones((N_LAYERS, D_MODEL)))
    write_outcome({"read": read, "direction": direction}, tmp_path / "stored")
    again = read_outcome(tmp_path / "stored")
    assert np.array_equal(again["read"].values, read.values)
    assert again["read"].source == read.source
    pd.testing.assert_frame_equal(again["read"].table, read.table)
    assert np.array_equal(again["direction"].vectors, direction.vectors)
    assert again["direction"].card == direction.card


def test_what_cannot_be_stored_or_read_is_named(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="a stage cannot store a function"):
        write_outcome({"f": example}, tmp_path / "stored")
    write_outcome(example(), tmp_path / "stored")
    index = tmp_path / "stored" / "outcome.json"
    content = index.read_text()
    assert '"class": "estimate"' in content
    index.write_text(content.replace('"class": "estimate"', '"class": "subprocess:Popen"'))
    with pytest.raises(pp.PersonaProbeError, match=r"KeyError: 'subprocess:Popen'"):
        read_outcome(tmp_path / "stored")
    index.write_text(content)
    numbers = tmp_path / "stored" / "outcome.0.safetensors"
    numbers.write_bytes(numbers.read_bytes()[:20])
    with pytest.raises(pp.PersonaProbeError, match="cannot be read"):
        read_outcome(tmp_path / "stored")


def test_equal_content_has_one_digest_in_every_process(llama):
    code = "from persona_probe.runs.digest import digest; print(digest({'b': {3, 1}, 'a': [1.0, 'x', None]}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest({"a": (1.0, "x", None), "b": {1, 3}})
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N_LAYERS, D_MODEL))
    direction = pp.Direction.from_vectors(llama, vectors)
    one = pp.Add(direction, layers=1, strength=2.0)
    assert digest(one) == digest(pp.Add(direction, layers=[1], strength=2))
    others = [
        pp.Add(direction, layers=1, strength=2.5),
        pp.Add(direction, layers=0, strength=2.0),
        pp.Add(direction, layers=1, strength=2.0, scope="all"),
        pp.Add(pp.Direction.from_vectors(llama, vectors + 1e-6), layers=1, strength=2.0),
        pp.Clamp(direction, layers=1, target=2.0),
    ]
    assert len({digest(other) for other in [one, *others]}) == 6
    assert len({digest(x) for x in (1, 1.0, "1", True, None, [1], {"1": 1}, b"1")}) == 8


def test_dialogues_are_written_and_read_as_they_are(tmp_path):
    file = write_dialogues(tmp_path / "talk.jsonl", [TALK, TALK.without_answer()])
    assert read_records(file) == [TALK, TALK.without_answer()]
    with pytest.warns(pp.PersonaProbeWarning, match="line 1, 'messages'"):
        asked, mended = pp.read_dialogues(file)[0].messages
    assert (asked, mended.content) == (TALK.messages[0], "So. \ufffd")
