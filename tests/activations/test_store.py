import datetime
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import persona_probe as pp
from persona_probe.activations.store import writing as store_writing
from persona_probe.activations.store.reading import ActivationStore, in_words, store_bytes
from persona_probe.activations.store.writing import capture_to_store
from tests.conftest import D_MODEL, N_LAYERS


def talk(number, asked="How do I handle the fever?", answer="Gladly, treat the fever.", **more):
    words = " ".join(["please"] * number)
    messages = [{"role": "user", "content": f"{asked} {words}"}, {"role": "assistant", "content": answer}]
    return pp.Dialogue.from_messages(messages, id=f"d{number}", question=f"q{number % 2}", seed=number, **more)


TALKS = [talk(n, labels={"topic": "law" if n % 2 else "medicine", "score": n / 2}) for n in range(5)]
OTHERS = [talk(n, asked="Hi.", answer="Review the contract.") for n in range(3)]
SMALL = {"dialogues_per_shard": 2, "tokens_per_batch": 64}


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def forwards(llama):
    counted = []
    llama.stream.backbone.register_forward_hook(lambda *_: counted.append(1))
    return counted


def same_tables(left, right):
    pd.testing.assert_frame_equal(left, right, check_like=True, check_dtype=False)


# --- what is read is what was captured


def test_a_store_holds_what_capture_returns(llama, tmp_path):
    plain = pp.capture(llama, TALKS, tokens_per_batch=64)
    store = capture_to_store(llama, TALKS, tmp_path / "s", tokens_per_batch=64)
    read = store.read()
    np.testing.assert_array_equal(read.values, plain.values)
    same_tables(read.table, plain.table)
    assert (read.layers, read.source) == (plain.layers, plain.source)
    assert (len(store), store.layers, store.d_model, store.dtype) == (5, (0, 1, 2), D_MODEL, "float32")
    assert store.complete
    assert store.missing == ()
    assert "5 rows x 3 layers x 32, float32, 1 shards" in repr(store)


@pytest.mark.parametrize("reduce", ["mean", "tokens"])
def test_many_shards_are_the_shards_captured_by_themselves(llama, tmp_path, reduce):
    store = capture_to_store(llama, TALKS, tmp_path / "s", reduce=reduce, **SMALL)
    alone = [pp.capture(llama, TALKS[i : i + 2], reduce=reduce, tokens_per_batch=64) for i in (0, 2, 4)]
    for shard, expected in zip(store.shards(), alone, strict=True):
        np.testing.assert_array_equal(shard.values, expected.values)
        assert shard.source == expected.source
    np.testing.assert_array_equal(store.read().values, np.concatenate([part.values for part in alone]))
    whole = pp.capture(llama, TALKS, reduce=reduce)
    same_tables(store.table, whole.table)
    np.testing.assert_allclose(store.at(1), whole.at(1), atol=1e-5)


def test_bfloat16_is_float32_rounded(llama, tmp_path):
    store = capture_to_store(llama, TALKS, tmp_path / "s", dtype="bfloat16", **SMALL)
    exact = capture_to_store(llama, TALKS, tmp_path / "exact", **SMALL).read().values
    read = store.read().values
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, torch.from_numpy(exact).bfloat16().float().numpy())
    np.testing.assert_allclose(read, exact, rtol=2**-8)
    np.testing.assert_array_equal(store.at(2), read[:, 2])


@pytest.mark.parametrize(
    "rows",
    [slice(1, 4), slice(None, None, -1), [4, 0, 0, 3], np.array([-1]), [True, False, True, False, True], []],
    ids=str,
)
def test_rows_and_layers_come_in_the_order_asked_for(llama, tmp_path, rows):
    store = capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    everything = store.read()
    picked = store.read(rows, layers=[2, 0])
    numbers = np.arange(5)[np.array(rows, dtype=None if len(rows) else int) if isinstance(rows, list) else rows]
    np.testing.assert_array_equal(picked.values, everything.values[numbers][:, [2, 0]])
    assert picked.table["id"].tolist() == everything.table["id"].iloc[numbers].tolist()
    assert picked.layers == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rows": [5]}, "index 5 is out of bounds.*below 5"),
        ({"rows": [True]}, r"\(1,\) truth values, the store has 5 rows"),
        ({"rows": [[1]]}, "flat list"),
        ({"layers": [3]}, "layer 3 was not captured; captured: 0, 1, 2"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "some"}, "'some'"),
    ],
)
def test_rows_and_layers_that_are_not_there(llama, tmp_path, arguments, said):
    store = capture_to_store(llama, TALKS, tmp_path / "s")
    with pytest.raises(pp.PersonaProbeError, match=said):
        store.read(**arguments)


def test_reading_maps_the_shards(llama, tmp_path, monkeypatch):
    capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    mapped, memmap = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda file, **more: mapped.append(Path(file).name) or memmap(file, **more))
    store = ActivationStore.open(tmp_path / "s")
    assert len(store.table) == 5
    assert mapped == []
    store.read([3], layers=1)
    assert mapped == ["00001.safetensors"]


def test_the_files_are_what_other_tools_read(llama, tmp_path):
    from safetensors.numpy import load_file

    store = capture_to_store(llama, TALKS, tmp_path / "a=b" / "s", layers=[1], **SMALL)
    values = [load_file(file)["values"] for file in sorted(store.path.glob("shards/*.safetensors"))]
    np.testing.assert_array_equal(np.concatenate(values)[:, 0], store.at(1))
    index = pd.read_parquet(store.path / "index")
    assert index["id"].tolist() == store.table["id"].tolist() == [f"d{n}" for n in range(5)]
    assert index["topic"].tolist() == store.table["topic"].tolist()
    assert "a" not in store.table


OPENED_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from persona_probe.activations.store.reading import ActivationStore
store = ActivationStore.open(sys.argv[1])
store.verify()
print(store.read([0, 4]).values.sum(), store.table["topic"].iloc[1], sum(len(shard) for shard in store.shards()))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_opens_without_torch(llama, tmp_path, dtype):
    store = capture_to_store(llama, TALKS, tmp_path / "s", dtype=dtype, **SMALL)
    ran = subprocess.run(
        [sys.executable, "-c", OPENED_WITHOUT_TORCH, store.path], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [str(store.read([0, 4]).values.sum()), "law", "5"]


# --- labels of any type


def test_labels_keep_their_values_whatever_their_type(llama, tmp_path):
    first = [{"a": 1, "b": "x", "c": True, "e": [1, {"k": None}]}, {"a": 2, "b": None, "d": 0.5}, {"a": "three"}]
    later = [{"b": 7, "c": "yes", "new": "n"}, {"b": "y", "new": None}, {"d": 3, "other_labels": "mine"}]
    path = tmp_path / "s"
    one = [talk(n, labels=labels) for n, labels in enumerate(first)]
    two = [talk(n, asked="Hi.", labels=labels) for n, labels in enumerate(later)]
    capture_to_store(llama, one, path, **SMALL)
    table = capture_to_store(llama, two, path, **SMALL).table
    for row, labels in enumerate(first + later):
        for name in ("a", "b", "c", "d", "e", "new", "other_labels"):
            found, expected = table[name].iloc[row], labels.get(name)
            assert (found is None or found != found) if expected is None else found == expected, (row, name)
    assert isinstance(table["a"].iloc[0], int)
    assert table["seed"].tolist() == [0, 1, 2, 0, 1, 2]
    assert pd.read_parquet(path / "index")["b"].tolist()[4] == "y"


def test_a_label_that_cannot_be_written_down_is_named(llama, tmp_path, forwards):
    with pytest.raises(pp.PersonaProbeError, match="'d1': the label 'when' is Timestamp"):
        capture_to_store(llama, [talk(1, labels={"when": pd.Timestamp("2024-01-01")})], tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert not forwards


# --- again, and more


def test_again_runs_nothing_and_others_are_appended(llama, tmp_path, forwards):
    path = tmp_path / "s"
    capture_to_store(llama, TALKS, path, **SMALL)
    before = contents(path)
    forwards.clear()
    assert len(capture_to_store(llama, TALKS, path, **SMALL)) == 5
    assert not forwards
    assert contents(path) == before
    both = capture_to_store(llama, OTHERS, path, tokens_per_batch=64)
    assert len(both) == 8
    assert {name: data for name, data in contents(path).items() if name in before and name != "store.json"} == {
        name: data for name, data in before.items() if name != "store.json"
    }
    alone = capture_to_store(llama, OTHERS, tmp_path / "alone", **SMALL)
    np.testing.assert_array_equal(both.read(slice(5, None)).values, alone.read().values)
    assert both.table["id"].tolist() == [*(f"d{n}" for n in range(5)), "d0", "d1", "d2"]
    assert [entry["first_shard"] for entry in json.loads((path / "store.json").read_text())["captures"]] == [0, 3]
    forwards.clear()
    capture_to_store(llama, TALKS, path, **SMALL)
    assert not forwards


def test_dialogue_numbers_count_through_the_store(llama, tmp_path):
    capture_to_store(llama, TALKS, tmp_path / "s", reduce="tokens", **SMALL)
    table = capture_to_store(llama, OTHERS, tmp_path / "s", reduce="tokens", **SMALL).table
    assert table["dialogue"].unique().tolist() == list(range(8))
    assert table.groupby("dialogue")["id"].first().tolist()[-2:] == ["d1", "d2"]


def test_what_capture_counts_may_differ_between_shards(llama, tmp_path, monkeypatch):
    counts = itertools.count()

    def counting(*arguments, **more):
        captured = pp.capture(*arguments, **more)
        count = next(counts)
        captured.source.update(counted=count, sinks_left_out=[count, 1, 0])
        return captured

    monkeypatch.setattr(store_writing, "capture", counting)
    capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    store = capture_to_store(llama, OTHERS, tmp_path / "s", **SMALL)
    assert store.source["counted"] == 0
    assert store.source["sinks_left_out"] == [10, 5, 0]
    assert [shard.source["counted"] for shard in store.shards()] == [0, 1, 2, 3, 4]


class StoppedError(Exception):
    pass


def stop_after(monkeypatch, shards):
    left = iter(range(shards))

    def capture(*arguments, **more):
        if next(left, None) is None:
            raise StoppedError
        return pp.capture(*arguments, **more)

    monkeypatch.setattr(store_writing, "capture", capture)


def test_finished_shards_are_not_computed_again(llama, tmp_path, monkeypatch, forwards):
    path = tmp_path / "s"
    small = {"dialogues_per_shard": 1, "tokens_per_batch": 1}
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(StoppedError):
            capture_to_store(llama, TALKS, path, **small)
    assert len(forwards) == 3
    with pytest.raises(pp.PersonaProbeError, match=r"unfinished: 2 of 5 shards .* first is 00003.safetensors"):
        ActivationStore.open(path)
    part = ActivationStore.open(path, unfinished=True)
    assert (part.complete, part.missing, len(part)) == (False, (3, 4), 3)
    assert "2 shards missing" in repr(part)
    forwards.clear()
    assert capture_to_store(llama, TALKS, path, **small).complete
    assert len(forwards) == 2
    capture_to_store(llama, TALKS, tmp_path / "unbroken", **small)
    assert contents(path) == contents(tmp_path / "unbroken")


def test_an_unfinished_capture_goes_on_with_the_batches_it_was_begun_with(llama, tmp_path, monkeypatch):
    capture_to_store(llama, TALKS, tmp_path / "unbroken", **SMALL)
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        with pytest.raises(StoppedError):
            capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    capture_to_store(llama, TALKS, tmp_path / "s", tokens_per_batch=7)
    assert contents(tmp_path / "s") == contents(tmp_path / "unbroken")


def test_a_steered_model_is_refused(llama, tmp_path):
    direction = pp.Direction.from_vectors(llama, np.ones((N_LAYERS, D_MODEL)))
    with (
        pytest.raises(pp.PersonaProbeError, match="is being steered"),
        pp.steer(llama, direction, layers=1, scope="all"),
    ):
        capture_to_store(llama, TALKS, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_left_overs_are_removed(llama, tmp_path, monkeypatch):
    path = tmp_path / "s"
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        with pytest.raises(StoppedError):
            capture_to_store(llama, TALKS, path, **SMALL)
    (path / "shards" / ".00001.safetensors.part").write_bytes(b"half")
    (path / "shards" / "00001.safetensors").write_bytes(b"whole, but without its index part")
    (path / "index" / ".00002.parquet.part").write_bytes(b"half")
    assert len(pd.read_parquet(path / "index")) == 2
    capture_to_store(llama, TALKS, path, **SMALL)
    capture_to_store(llama, TALKS, tmp_path / "unbroken", **SMALL)
    assert contents(path) == contents(tmp_path / "unbroken")


# --- refusals


def test_an_unfinished_capture_must_be_finished_first(llama, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        with pytest.raises(StoppedError):
            capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    with pytest.raises(pp.PersonaProbeError, match=r"capture 0 \(5 dialogues\) is unfinished, 2 of 3 shards"):
        capture_to_store(llama, OTHERS, tmp_path / "s", **SMALL)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"span": "response"}, "span 'generation', now it is 'response'"),
        ({"reduce": "last"}, "reduce 'mean', now it is 'last'"),
        ({"layers": [1]}, r"layers \[0, 1, 2\], now it is \[1\]"),
        ({"sink_ratio": 5.0}, "sink_ratio 10.0, now it is 5.0"),
        ({"sink_ratio": None}, "sink_ratio 10.0, now it is None"),
        ({"dtype": "bfloat16"}, "dtype 'float32', now it is 'bfloat16'"),
        ({"dialogues_per_shard": 3}, "dialogues_per_shard 2, now it is 3"),
    ],
)
def test_other_settings_are_refused_with_both_values(llama, tmp_path, changed, said):
    capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    with pytest.raises(pp.PersonaProbeError, match=said):
        capture_to_store(llama, TALKS, tmp_path / "s", **{**SMALL, **changed})


def test_another_model_or_template_is_refused(llama, tmp_path):
    capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    llama.tokenizer.chat_template += "{% set unused = 1 %}"
    with pytest.raises(pp.PersonaProbeError, match=r"started with template_hash '[0-9a-f]{16}', now it is"):
        capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    with torch.no_grad():
        next(llama.hf.parameters()).add_(1)
    with pytest.raises(pp.PersonaProbeError, match="started with model_hash"):
        capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)


def test_another_day_is_named_where_the_template_writes_it(llama, tmp_path):
    llama.tokenizer.chat_template = "{{ strftime_now('%d') }}" + llama.tokenizer.chat_template
    llama.tokenizer.bos_token = None
    llama.template.today = datetime.date(2026, 1, 31)
    store = capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    assert store.source["today"] == "2026-01-31"
    llama.template.today = datetime.date(2026, 2, 1)
    with pytest.raises(pp.PersonaProbeError, match="started with today '2026-01-31', now it is '2026-02-01'"):
        capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)


def test_the_same_dialogues_under_other_labels_are_refused(llama, tmp_path):
    capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    with pytest.raises(pp.PersonaProbeError, match="capture 0 holds the same dialogues with other ids or labels"):
        capture_to_store(llama, [dialogue.with_labels(topic="x") for dialogue in TALKS], tmp_path / "s", **SMALL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dtype": "float16"}, "unknown dtype 'float16': choose one of float32, bfloat16"),
        ({"dialogues_per_shard": 0}, "dialogues_per_shard is 0"),
        ({"reduce": "moments"}, "cannot hold the reduction 'moments': choose one of mean, last, max, tokens"),
        ({"span": "anwser"}, "unknown span 'anwser'"),
        ({"layers": 3}, "layer 3 does not exist"),
    ],
)
def test_bad_arguments_leave_nothing_behind(llama, tmp_path, arguments, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        capture_to_store(llama, TALKS, tmp_path / "s", **arguments)
    assert not (tmp_path / "s").exists()


def test_folders_that_are_no_store(llama, tmp_path):
    with pytest.raises(pp.PersonaProbeError, match=r"no store\.json"):
        ActivationStore.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(pp.PersonaProbeError, match=r"not empty \(it holds notes\.txt\)"):
        capture_to_store(llama, TALKS, tmp_path)
    (tmp_path / "store.json").write_text('{"format": "persona-probe activation store 9"}')
    with pytest.raises(pp.PersonaProbeError, match=r"'persona-probe activation store 9', this version .* store 1'"):
        ActivationStore.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(pp.PersonaProbeError, match=r"store\.json: cannot be read"):
        ActivationStore.open(tmp_path)


# --- one writer


def test_not_even_the_same_process_writes_twice_at_once(llama, tmp_path, monkeypatch):
    path = tmp_path / "s"
    with monkeypatch.context() as patched:
        patched.setattr(store_writing, "capture", lambda *_, **__: capture_to_store(llama, TALKS, path))
        with pytest.raises(pp.PersonaProbeError, match=f"process {os.getpid()} on .* is writing"):
            capture_to_store(llama, TALKS, path)
    assert capture_to_store(llama, TALKS, path).complete


# --- size


def test_sizes():
    assert store_bytes(10_000 * 300, 48, 5120, "bfloat16") == 1_474_560_000_000
    assert [in_words(size) for size in (12, 1500, 4_915_200_000)] == ["12 bytes", "1.5 kB", "4.9 GB"]


def disk(monkeypatch, free):
    monkeypatch.setattr(store_writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_a_large_store_is_refused_in_words_that_can_be_checked(tmp_path, monkeypatch):
    header = {"layers": range(48), "d_model": 5120, "dtype": "bfloat16", "source": {"reduce": "tokens"}}
    disk(monkeypatch, 10**13)
    with pytest.raises(pp.PersonaProbeError) as refused:
        store_writing._check_room(tmp_path, header, 10_000, 3_000_000, 3_000_000, yes=False)
    assert str(refused.value) == (
        f"{tmp_path}: 10,000 dialogues x 300 tokens x 48 layers x 5120 x 2 bytes = 1.5 TB; "
        "give yes=True (--yes) to write it anyway, or reduce='mean' takes 4.9 GB"
    )
    store_writing._check_room(tmp_path, header, 10_000, 3_000_000, 3_000_000, yes=True)
    with pytest.raises(pp.PersonaProbeError, match="3,000,001 tokens of 10,000 dialogues x 48 layers"):
        store_writing._check_room(tmp_path, header, 10_000, 3_000_001, 0, yes=False)
    disk(monkeypatch, 10**12)
    with pytest.raises(
        pp.PersonaProbeError, match=r"= 1\.5 TB, but the disk has 1\.0 TB free; reduce='mean' takes 4\.9"
    ):
        store_writing._check_room(tmp_path, header, 10_000, 3_000_000, 3_000_000, yes=True)
    store_writing._check_room(tmp_path, header, 10_000, 3_000_000, 1_000_000, yes=True)


def test_the_size_is_known_before_the_model_runs(llama, tmp_path, monkeypatch, forwards):
    path = tmp_path / "s"
    monkeypatch.setattr(store_writing, "_UNASKED_BYTES", 1000)
    with pytest.raises(pp.PersonaProbeError, match=r"5 dialogues x 3 layers x 32 x 4 bytes = 1\.9 kB; give yes=True"):
        capture_to_store(llama, TALKS, path)
    assert not path.exists()
    disk(monkeypatch, 1000)
    with pytest.raises(pp.PersonaProbeError, match=r"the disk has 1\.0 kB free"):
        capture_to_store(llama, TALKS, path, yes=True)
    assert not forwards
    disk(monkeypatch, 10**9)
    assert len(capture_to_store(llama, TALKS, path, yes=True)) == 5
    assert len(capture_to_store(llama, TALKS, path)) == 5


def test_shards_are_cut_so_that_one_fits_memory(llama, tmp_path, monkeypatch):
    assert capture_to_store(llama, TALKS, tmp_path / "all").path.joinpath("shards/00000.safetensors").exists()
    monkeypatch.setattr(store_writing, "_SHARD_BYTES", 2 * store_bytes(1, N_LAYERS, D_MODEL))
    store = capture_to_store(llama, TALKS, tmp_path / "s")
    assert [len(shard) for shard in store.shards()] == [2, 2, 1]


# --- damage


def test_a_changed_shard_is_named_and_can_be_mended(llama, tmp_path):
    store = capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    before = contents(store.path)
    store.verify()
    shard, index = store.path / "shards" / "00001.safetensors", store.path / "index" / "00001.parquet"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(pp.PersonaProbeError, match=rf"{shard}: the shard has changed .* delete {shard} and {index}"):
        store.verify()
    shard.unlink()
    index.unlink()
    with pytest.raises(pp.PersonaProbeError, match="1 of 3 shards"):
        ActivationStore.open(store.path)
    with pytest.raises(pp.PersonaProbeError, match=r"capture 0 .* is unfinished, 1 of 3"):
        capture_to_store(llama, OTHERS, store.path, **SMALL)
    capture_to_store(llama, TALKS, store.path, **SMALL)
    assert contents(store.path) == before


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "empty", "gibberish", "other shape"])
def test_a_damaged_shard_is_named(llama, tmp_path, damage):
    store = capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    shard = store.path / "shards" / "00001.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(
        {
            "cut": data[:-1],
            "longer": data + b"x",
            "header": (2**40).to_bytes(8, "little") + data[8:],
            "empty": b"",
            "gibberish": data[:8] + b"}" + data[9:],
            "other shape": (store.path / "shards" / "00002.safetensors").read_bytes(),
        }[damage]
    )
    with pytest.raises(pp.PersonaProbeError, match=rf"{shard}: the shard is damaged: .*; delete"):
        store.read()
    assert len(store.read([0, 1, 4])) == 3


def test_a_damaged_index_part_is_named(llama, tmp_path):
    store = capture_to_store(llama, TALKS, tmp_path / "s", **SMALL)
    index = store.path / "index" / "00001.parquet"
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(pp.PersonaProbeError, match=rf"{index}: the index part is damaged"):
        ActivationStore.open(store.path)


# --- killed


def captures(model, folder):
    """What the killed process does: a capture, and another appended."""
    capture_to_store(model, TALKS, folder, **SMALL)
    capture_to_store(model, OTHERS, folder, dtype="float32", **SMALL)


def in_child(action, *arguments):
    """Run in a forked process; whether a SIGKILL ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            action(*arguments)
        except BaseException:  # noqa: BLE001  (a child must never go on as the test)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def killed_at(step, action, *arguments):
    """Kill this process just before or after its ``step``-th rename or flush."""
    steps = itertools.count(1)

    def deadly(call):
        def wrapped(*given, **more):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*given, **more)
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
    action(*arguments)


def kill_everywhere(model_folder, work):
    """Run in a process of its own: kill at every step and resume; then kill again and again until it gets through."""
    torch.set_num_threads(1)
    model, work = pp.load(model_folder), Path(work)
    captures(model, work / "unbroken")
    for step in itertools.count(1):
        folder = work / f"killed-{step:03d}"
        if not in_child(killed_at, step, captures, model, folder):
            break
        assert not in_child(captures, model, folder)
    tries = 1
    while in_child(killed_at, 20, captures, model, work / "killed-often"):
        tries += 1
    (work / "counted.json").write_text(json.dumps({"steps": step, "tries": tries}))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_anywhere_it_resumes_to_the_same_bytes(folders, tmp_path):
    code = "import sys; from tests.activations.test_store import kill_everywhere; kill_everywhere(*sys.argv[1:])"
    ran = subprocess.run(
        [sys.executable, "-c", code, folders("llama"), tmp_path],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    counted = json.loads((tmp_path / "counted.json").read_text())
    assert counted["steps"] > 60
    assert counted["tries"] > 3
    unbroken = contents(tmp_path / "unbroken")
    assert len(unbroken) == 11
    killed = sorted(tmp_path.glob("killed-*"))
    assert len(killed) == counted["steps"] + 1
    for folder in killed:
        assert contents(folder) == unbroken, folder


def test_the_digest_is_over_token_ids_and_spans(llama, tmp_path):
    capture_to_store(llama, TALKS, tmp_path / "s")
    digest = hashlib.sha256()
    for item in llama.encode(TALKS):
        place = item.span("generation")
        digest.update(np.array([len(item.input_ids), place.start, place.stop, *item.input_ids], "<i8").tobytes())
    assert json.loads((tmp_path / "s" / "store.json").read_text())["captures"][0]["digest"] == digest.hexdigest()
