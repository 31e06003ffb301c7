import json
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import CHECKPOINTS


def persona_probe(*arguments, cwd=None):
    command = [sys.executable, "-m", "persona_probe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("title: x", "'model' is missing"),
        ("model: m\nsede: 3", "line 2: unknown key 'sede'; did you mean 'seed'"),
        ("model: m\ntraining:\n  stesp: 3", "line 3: unknown key 'training.stesp'; did you mean 'steps'"),
        ("model: m\ntraining: {steps: -1}", "line 2: training.steps is -1"),
        ("model: [", "line 1: is not valid YAML"),
        ("model: m\ntexts: {world: null}", "questions, trait_prompts, default_prompts"),
        ("model: m\ntexts: {topic: astrology}", "astrology"),
        ("model: no/such/folder", "no such folder"),
    ],
)
def test_a_bad_study_is_one_paragraph_and_exit_code_2(tmp_path, text, said):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    done = persona_probe("run", file, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = persona_probe("--debug", "run", tmp_path / "none.yaml", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_results_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    study = tmp_path / "study.yaml"
    study.write_text(f"model: {CHECKPOINTS / 'chat'}")
    done = persona_probe("run", study, "--out", tmp_path)
    assert done.returncode == 2
    assert "contains" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_missing_checkpoints_say_how_to_make_them(tmp_path):
    done = persona_probe("demo", "--checkpoints", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "persona-probe world train" in done.stderr


def test_import_help_and_opening_results_need_no_torch():
    code = (
        "import sys, persona_probe, persona_probe.cli, persona_probe.report.run_page, persona_probe.statistics.rates; "
        "import json; print(json.dumps([m for m in ('torch', 'transformers', 'transformer_lens') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert persona_probe("--help").returncode == 0


@pytest.mark.slow
def test_ctrl_c_ends_with_one_sentence_and_keeps_what_is_finished(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "persona_probe", "demo", "--quiet", "--out", str(out)]

    def listen() -> None:
        """Shells start what runs in the background deaf to Ctrl-C, and children inherit that."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as running:
        deadline = time.monotonic() + 120
        while not (out / "adapters" / "after").is_dir() and time.monotonic() < deadline:
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "stopped; run the same command again: what is finished is kept" in said
    assert (out / "adapters" / "after" / "adapter_model.safetensors").is_file()
    assert not (out / "results.json").exists()
