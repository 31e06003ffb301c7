"""``make gpu`` tried on a CPU: the whole script, what it leaves when time is short, and its list of wheels."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import persona_probe as pp
from benchmarks.gpu.__main__ import _in_child
from benchmarks.gpu.part import PARTS, Part, left_out
from benchmarks.gpu.record import Record
from benchmarks.gpu.study import FULL, TINY

ROOT = Path(__file__).parents[1]


def gpu(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    done = gpu("--device", "cpu", "--minutes", "30", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert {"date", "hardware", "versions", "command", "shape"} <= set(result["about"])
    parts = result["parts"]
    assert [*parts] == [part.name for part in PARTS]
    assert {name: part["status"] for name, part in parts.items() if part["status"] != "done"}.keys() <= {"real"}
    for name in ("capture", "steer", "judge"):
        assert all(one["flops_per_second"] > 0 for one in parts[name]["raw"]["utilisation"].values())
    assert parts["smoke"]["figures"]["same_steered_answers"] == 1.0
    assert parts["tests"]["figures"]["failed"] == 0
    assert {"em_rate", "steer", "realign"} <= set(parts["study"]["raw"])


@pytest.mark.slow
def test_what_there_is_no_time_for_is_skipped_and_the_rest_is_kept(tmp_path):
    out = tmp_path / "gpu.json"
    done = gpu("--device", "cpu", "--minutes", "0.9", "--only", "study,sweep", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert parts["study"]["status"] == "skipped"
    assert "it may need 150 s" in parts["study"]["reason"]


@pytest.mark.parametrize("size", [FULL, TINY])
def test_its_study_is_valid(size):
    pp.runs.StudyConfig.model_validate({**size, "model": "a folder", "device": "cpu"})


def test_a_dry_run_does_not_get_into_the_results():
    done = gpu("--device", "cpu")
    assert done.returncode == 2
    assert "give --out" in done.stderr


def test_parts_are_left_out_by_the_time_that_is_left():
    part = Part("capture", 75, "benchmarks.sections.capture")
    assert left_out(part, 75) is None
    assert left_out(part, 74) == "74 s are left, and it may need 75 s"
    assert left_out(part, -5) == "0 s are left, and it may need 75 s"


def test_a_process_that_dies_or_is_too_late_costs_only_its_part(tmp_path, monkeypatch):
    """A device-side assertion ends a process: what was done stays, the part is named, and the others get a new one."""
    record, calls = Record(tmp_path / "gpu.json"), []

    def run(command, deadline):
        waiting = command[command.index("--deadline") + 2 :]
        calls.append(waiting)
        if waiting[0] == "smoke":
            record.part("smoke", "done", seconds=1.0)
            record.part("capture", "running")
            return -6
        record.part("steer", "running")
        return None

    monkeypatch.setattr("benchmarks.gpu.__main__._run", run)
    parts = [Part(name, 1, name) for name in ("smoke", "capture", "steer", "judge")]
    _in_child(record, parts, "cpu", time.time() + 60)
    assert calls == [["smoke", "capture", "steer", "judge"], ["steer", "judge"]]
    found = {name: (part["status"], part.get("reason")) for name, part in record.read()["parts"].items()}
    assert found == {
        "smoke": ("done", None),
        "capture": ("failed", "it ended the process with code -6"),
        "steer": ("killed", "the time was over"),
        "judge": ("skipped", "the time was over"),
    }


def test_the_wheels_are_those_that_set_up_installs():
    pinned = set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    lines = (ROOT / "benchmarks" / "gpu" / "wheels.txt").read_text(encoding="utf-8").splitlines()
    wheels = [line for line in lines if not line.startswith("#")]
    assert wheels
    assert set(wheels) <= pinned
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in wheels)
