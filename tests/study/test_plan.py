"""What a plan says is what a study then does."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import persona_probe as pp
from persona_probe.activations import capturing
from persona_probe.cli import app
from persona_probe.models import model as models
from persona_probe.runs.config import Loading
from persona_probe.steering.strength.side_by_side import SideBySide
from persona_probe.study import run
from persona_probe.study.plan import plan_study
from persona_probe.study.stages import order
from tests.conftest import CHECKPOINTS
from tests.study.test_study import write

STAGES = ["fine-tune", "further-runs", "measure", "find", "track", "compare", "steer", "realign"]


def test_a_study_does_what_was_planned(tmp_path, monkeypatch):
    config = write(tmp_path, model=str(CHECKPOINTS / "chat"), training={"steps": 3, "rows": 32, "runs": 2})
    planned = plan_study(config).stages
    assert list(planned) == STAGES
    answers, texts, now = Counter(), Counter(), []

    def staged(stage):
        def noted(*arguments):
            now.append(stage.name)
            return stage.run(*arguments)

        return replace(stage, run=noted)

    monkeypatch.setattr(run, "STAGES", [staged(stage) for stage in order.STAGES])
    generate, run_pass = models.generate, capturing.run_pass

    def counting_generate(model, dialogues, sampling, **more):
        answers[now[-1]] += len(dialogues) * sampling.n
        return generate(model, dialogues, sampling, **more)

    def counting_pass(readers, encoded, *arguments, **more):
        texts[now[-1]] += len(readers) * len(encoded)
        return run_pass(readers, encoded, *arguments, **more)

    monkeypatch.setattr(models, "generate", counting_generate)
    monkeypatch.setattr(capturing, "run_pass", counting_pass)
    read = SideBySide.read

    def counting_read(self, interventions, *arguments):
        texts[now[-1]] += len(self.stops) * (1 + len(interventions))
        return read(self, interventions, *arguments)

    monkeypatch.setattr(SideBySide, "read", counting_read)
    out = tmp_path / "out"
    pp.run_study(config, out, progress=False)
    for name, work in planned.items():
        # How many settings a search for steering reads and samples depends on where the model breaks: at most so many.
        fewest = 0.5 * work.answers if name == "steer" else work.answers
        assert fewest <= answers[name] <= work.answers
        # Answers without text are not read, nor those to the unseen questions where too few are of one kind.
        least = work.texts - (config.sampling.reported if name == "find" else 0)
        assert (0.3 if name == "steer" else 0.8) * least <= texts[name] <= work.texts
    again = plan_study(config, measured=out)
    assert set(again.seconds) == set(planned)
    assert any("in all" in line and "speeds measured in" in line for line in again.lines())
    with pytest.raises(pp.PersonaProbeError, match="holds no finished run"):
        plan_study(config, measured=tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    seconds = {name: part["seconds"] for name, part in manifest["work"].items()}
    assert again.seconds["further-runs"] == pytest.approx(seconds["further-runs"])
    del manifest["work"]["further-runs"]  # as a study of one run leaves it
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert plan_study(config, measured=out).seconds["further-runs"] == pytest.approx(seconds["fine-tune"])


def test_planning_needs_no_weights(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINTS / "chat", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    file = tmp_path / "study.yaml"
    file.write_text(f"model: {folder}\n")
    shown = CliRunner().invoke(app, ["plan", str(file), "--tokens-per-second", "1000"])
    assert shown.exit_code == 0, shown.output
    assert "2,218,400 parameters, 5 layers of 160; weights 8.9 MB as float32" in shown.output
    assert "at 1,000 tokens per second throughout" in shown.output
    assert "no speed was given" in CliRunner().invoke(app, ["plan", str(file)]).output


def test_a_plan_says_when_the_model_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("persona_probe.study.plan.free_bytes", lambda options: 5_000_000)
    (tmp_path / "study.yaml").write_text(f"model: {CHECKPOINTS / 'chat'}\nloading:\n  dtype: bfloat16\n")
    plan = plan_study(pp.read_config(tmp_path / "study.yaml"))
    assert plan.model.weight_bytes == 2 * plan.model.parameters
    assert plan.model.weight_bytes < 4_500_000
    assert "DOES NOT FIT" not in plan.lines()[0]
    whole = plan_study(pp.read_config(tmp_path / "study.yaml").model_copy(update={"loading": Loading()}))
    assert "DOES NOT FIT" in whole.lines()[0]


def test_speeds_of_another_model_are_refused(tmp_path, folders):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "manifest.json").write_text('{"work": {}, "parameters": 7}')
    with pytest.raises(pp.PersonaProbeError, match="measured on a model of 7 parameters, this one has"):
        plan_study(write(tmp_path, model=str(folders("llama"))), measured=run_folder)
