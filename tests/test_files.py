"""Files appear whole, and a folder has one writer: tried with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.files import only_writer, whole_file, whole_folder, write_json, write_text

HOLD = """
import sys
from pathlib import Path
from persona_probe.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Whoever holds the folder makes a file that must not exist: if two hold it at once, one of them fails.
RACE = """
import os, sys
from pathlib import Path
from persona_probe.errors import PersonaProbeError
from persona_probe.files import only_writer
folder, inside, held = Path(sys.argv[1]), Path(sys.argv[2]), 0
for _ in range(300):
    try:
        with only_writer(folder):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            held += 1
            inside.unlink()
    except PersonaProbeError:
        pass
print(held)
"""


def stop_half_way(file):
    file.write_text("half")
    raise KeyboardInterrupt


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_and_named_and_one_that_was_killed_holds_nothing(tmp_path):
    folder = tmp_path / "new"
    with hold(folder) as process:
        refused = rf"new: process {process.pid} on .* is writing .*; wait until"
        with pytest.raises(PersonaProbeError, match=refused), only_writer(folder):
            pass
        process.send_signal(signal.SIGKILL)
    with only_writer(folder):
        assert (folder / "lock").read_text().startswith(f"process {os.getpid()} on")
    assert not folder.exists()


def test_a_lock_file_that_nobody_holds_does_not_matter(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "lock").write_text("process 1 on another-host")
    (folder / "results").touch()
    with only_writer(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["results"]


def test_a_file_is_no_folder_to_hold(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PersonaProbeError, match="file: is a file; give a folder"), only_writer(tmp_path / "file"):
        pass


def test_a_folder_that_cannot_be_made_is_an_error_and_no_endless_wait(tmp_path, monkeypatch):
    def vanishing(path, *arguments, **settings):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "mkdir", vanishing)  # as in /proc
    with pytest.raises(PersonaProbeError, match="folder: this folder cannot be made"), only_writer(tmp_path / "folder"):
        pass


def test_two_processes_never_hold_a_folder_at_once(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path / "folder"), str(tmp_path / "inside")]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    done = [process.communicate(timeout=60) for process in racing]
    assert [process.returncode for process in racing] == [0] * 4, "\n".join(error for _, error in done)
    assert all(int(held) > 0 for held, _ in done)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    write_text(file, "first \ud800\n")
    assert file.read_bytes() == b"first ?\n"
    with pytest.raises(KeyboardInterrupt), whole_file(file) as part:
        stop_half_way(part)
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"]
    assert file.read_bytes() == b"first ?\n"
    assert write_json(file, {"a": float("nan")}).read_text() == '{\n  "a": null\n}\n'


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "folder"
    with whole_folder(folder) as part:
        (part / "old").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as part:
        stop_half_way(part / "new")
    assert [path.name for path in folder.iterdir()] == ["old"]
    with whole_folder(folder) as part:
        (part / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
