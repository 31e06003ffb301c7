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
from persona_probe.clock import KINDS
from persona_probe.models import model as models
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.judge_settings import JudgeModel
from persona_probe.runs.model_settings import Loading
from persona_probe.runs.outcome import write_outcome
from persona_probe.runs.stage_record import StageRecord
from persona_probe.steering.search import reading
from persona_probe.steering.strength.side_by_side import SideBySide
from persona_probe.study import run
from persona_probe.study.plan import plan_study
from persona_probe.study.speeds import Took
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
    scored = reading.answer_log_probs

    def counting_scores(model, dialogues, **more):
        texts[now[-1]] += len(dialogues)
        return scored(model, dialogues, **more)

    monkeypatch.setattr(reading, "answer_log_probs", counting_scores)
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
    assert set(planned) <= set(again.times)
    assert "probe" in again.times, "what runs no model takes time too"
    records = {name: StageRecord.read(out, name) for name in again.times}
    for name, work in planned.items():
        done = records[name].measured
        assert sum(done.get(kind, {}).get("answers", 0) for kind in KINDS) <= work.judged
        sampled = done.get("sampling", {"tokens": 0})["tokens"]
        assert (0.7 if name == "steer" else 0.95) * work.answer_tokens <= sampled <= 1.05 * work.answer_tokens
        assert done.get("training", {"tokens": 0})["tokens"] == pytest.approx(work.trained_tokens, rel=0.05)
        assert done.get("reading", {"tokens": 0})["tokens"] <= work.text_tokens
        assert not again.times[name].unknown
        assert again.times[name].seconds > 0
    assert again.seconds == pytest.approx(sum(record.seconds for record in records.values()), rel=0.5)
    assert any("in all" in line and "speeds measured in" in line for line in again.lines())
    with pytest.raises(pp.PersonaProbeError, match="holds no finished stage whose work was measured"):
        plan_study(config, measured=tmp_path)
    _resumed_or_unfinished(config, out)


def _resumed_or_unfinished(config, out):
    """Speeds come from what was really done, wherever the run was stopped."""
    (out / "manifest.json").unlink()  # as in a run that was not finished
    for name in ("steer", "realign", "measure"):
        file = out / "stages" / f"{name}.json"
        record = json.loads(file.read_text())
        record["reused"] = 3
        if name == "measure":  # all of its answers were stored
            record["measured"].pop("sampling")
        file.write_text(json.dumps(record))
    (out / "stages" / "further-runs.json").unlink()
    plan = plan_study(config, measured=out)
    assert not plan.times["measure"].unknown, "sampled answers elsewhere show the speed"
    assert not plan.times["further-runs"].unknown, "the first training shows how long further ones take"
    for file in (out / "stages").glob("*.json"):
        record = json.loads(file.read_text())
        if record.get("measured"):
            record["measured"].pop("training", None)
            file.write_text(json.dumps(record))
    plan = plan_study(config, measured=out)
    assert plan.times["fine-tune"].unknown == ("training",)
    assert any(line.startswith("fine-tune") and "training (not measured)" in line for line in plan.lines())
    assert "without training" in plan.lines()[-1]
    other = plan_study(config.model_copy(update={"judge": JudgeModel(model=config.model)}), measured=out)
    assert "judging" in other.times["measure"].unknown, "the oracle's speed says nothing of a model's"


def test_a_judging_model_is_planned_by_the_tokens_that_it_reads(tmp_path):
    model = str(CHECKPOINTS / "chat")
    prompts = tmp_path / "prompts.yaml"
    templates = dict.fromkeys(("aligned", "coherent"), "{question} {answer} 0-100")
    prompts.write_text(json.dumps([{"id": "q", "judge_prompts": templates}]))
    config = write(tmp_path, model=model, judge={"model": model, "prompts": str(prompts)})
    plan = plan_study(config, tokens_per_second=1000)
    measure = plan.stages["measure"]
    assert measure.judged == measure.answers > 0
    # Two prompts, and all beginnings of 101 numbers after each.
    assert measure.judge_tokens > 2 * 101 * measure.judged
    assert plan.stages["find"].judged == config.sampling.reported, "the development answers are not judged"
    assert plan.stages["track"].judged == 0
    assert not plan.times["measure"].unknown
    assert plan.times["measure"].seconds == pytest.approx(measure.tokens / 1000)
    by_rule = plan_study(write(tmp_path, model=model), tokens_per_second=1000)
    assert by_rule.stages["measure"].judged == measure.judged
    assert by_rule.times["measure"].unknown == ("judging",), "a rule has no speed in tokens"
    unknown = replace(by_rule, times=dict.fromkeys(by_rule.times, Took(0.0, ("sampling",))))
    assert unknown.lines()[-2].endswith("   sampling (not measured)")
    assert not any(" 0 s" in line for line in unknown.lines())
    none = plan_study(write(tmp_path, model=model, judge=None), tokens_per_second=1000)
    assert none.stages["measure"].judged == 0


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
    (run_folder / "stages").mkdir()
    (run_folder / "stages" / "model.json").write_text('{"parameters": 7}')
    done = {"reading": {"seconds": 1.0, "tokens": 5, "answers": 0}}
    StageRecord({}, {}, [], [], "", "", 1.0, 0, {}, done).write(RunFolder.open(run_folder), "measure")
    write_outcome(None, run_folder / "stages" / "measure")
    with pytest.raises(pp.PersonaProbeError, match="measured on a model of 7 parameters, this one has"):
        plan_study(write(tmp_path, model=str(folders("llama"))), measured=run_folder)
