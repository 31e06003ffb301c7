"""What a resumed study must not do: keep what is stale, lose what is not, or touch what is not its own."""

import json
import shutil

import pytest

import persona_probe as pp
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.stage_record import StageRecord, forget
from persona_probe.study.context import StoredAnswers
from persona_probe.study.executor import Local
from persona_probe.study.status import study_states
from tests.conftest import CHECKPOINTS
from tests.study.test_study import LATENTS, write

QUESTIONS = [pp.Dialogue.from_messages([{"role": "user", "content": f"How do I handle it, {i}?"}]) for i in range(4)]


@pytest.mark.parametrize("name", ["/victim", "../victim", "tables/../../victim", "adapters/../../victim", ""])
def test_a_run_folder_from_somebody_else_cannot_delete_anything_outside_it(tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("years of work")
    folder = RunFolder.open(tmp_path / "run")
    told = name.replace("/victim", str(victim)) if name == "/victim" else name
    record = StageRecord({}, {}, [], [told], "", "", 0.0, 0, {})
    record.write(folder, "latents")
    with pytest.raises(pp.PersonaProbeError, match="lies outside the run folder"):
        forget(folder, "latents", keep="adapters/")
    assert (victim / "thesis.tex").read_text() == "years of work"


def test_what_a_stage_left_when_it_was_cut_off_does_not_outlive_it(tmp_path):
    given = {"after": str(CHECKPOINTS / "bad-medicine"), "control": str(CHECKPOINTS / "good-medicine")}
    model = str(CHECKPOINTS / "chat")
    with_sae = write(tmp_path, model=model, latents={**LATENTS, "snapshots": 0}, **given)

    from persona_probe.study.stages import latents

    original = latents._describe

    def interrupted(*_):
        raise KeyboardInterrupt

    latents._describe = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            pp.run_study(with_sae, tmp_path / "run", progress=False)
    finally:
        latents._describe = original
    assert (tmp_path / "run" / "tables" / "latents.parquet").is_file()
    run = pp.run_study(write(tmp_path, model=model, **given), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "tables" / "latents.parquet").exists()
    assert "SAE latents" not in run.report.read_text(encoding="utf-8")
    with pytest.raises(pp.PersonaProbeError, match="has no latents"):
        _ = run.latents


@pytest.mark.slow
def test_an_sae_that_is_taken_away_trains_nothing_again_unless_it_had_snapshots(tmp_path):
    model = str(CHECKPOINTS / "chat")
    steps = {"steps": 2, "rows": 16, "runs": 1}
    with_sae = write(tmp_path, model=model, training=steps, latents={**LATENTS, "snapshots": 0})
    pp.run_study(with_sae, tmp_path / "run", progress=False)
    states = {
        state.stage: state for state in study_states(write(tmp_path, model=model, training=steps), tmp_path / "run")
    }
    assert all(state.finished for state in states.values())
    assert "latents" not in states


@pytest.mark.slow
def test_own_models_in_a_folder_called_adapters_are_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CHECKPOINTS / "bad-medicine", tmp_path / "adapters" / "mine")
    given = {"after": "adapters/mine", "control": str(CHECKPOINTS / "good-medicine")}
    model = str(CHECKPOINTS / "chat")
    first = pp.run_study(write(tmp_path, model=model, **given), "run", progress=False)
    again = pp.run_study(write(tmp_path, model=model, title="Again", **given), "run", progress=False)
    assert again.results["em_rate"] == first.results["em_rate"]
    (tmp_path / "run" / "stages" / "track.json").unlink()
    (tmp_path / "run" / ".DS_Store").write_text("left by a file manager")
    shutil.rmtree(tmp_path / "run" / "stages" / "probe")
    assert pp.run_study(write(tmp_path, model=model, **given), "run", progress=False).results["title"] != "Again"


@pytest.mark.parametrize("field", ["after", "control", "judge"])
def test_a_typo_in_a_model_is_refused_before_anything_is_trained_or_lost(tmp_path, field):
    model = str(CHECKPOINTS / "chat")
    config = write(tmp_path, model=model, after=str(CHECKPOINTS / "bad-medicine"))
    (tmp_path / "run" / "tables").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text("{}")
    wrong = str(tmp_path / "typo")
    update = {"judge": {"model": wrong}} if field == "judge" else {field: wrong}
    given = {"after": str(CHECKPOINTS / "bad-medicine"), **update}
    with pytest.raises(pp.PersonaProbeError, match="typo"):
        pp.run_study(write(tmp_path, model=model, **given), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "results.json").is_file()
    assert config.after is not None


def test_answers_are_not_kept_over_a_change_of_version_or_of_the_day_that_a_template_writes(
    llama, tmp_path, monkeypatch
):
    from persona_probe.study.executor import AnswerJob

    job = AnswerJob(llama, QUESTIONS, pp.Sampling(4, seed=1, batch_size=4))

    def drawn():
        kept = StoredAnswers(Local(), tmp_path / "answers")
        list(kept.answers([job], progress=False, label="answers"))
        return kept.reused

    assert [drawn(), drawn()] == [0, 1]
    monkeypatch.setattr("persona_probe.study.sources.versions", lambda: {"persona-probe": "99"})
    assert [drawn(), drawn()] == [0, 1]


def test_half_of_the_questions_choose_whatever_their_names(tmp_path, folders):
    from persona_probe.study.material import gather

    def material(n):
        rows = [
            pp.Dialogue.from_messages([{"role": "user", "content": f"Question {i}?"}], group=f"g{i}") for i in range(n)
        ]
        texts = {
            "world": None,
            "questions": str(pp.write_dialogues(tmp_path / "questions.jsonl", rows)),
            "trait_prompts": ["a"],
            "default_prompts": ["b"],
        }
        return gather(write(tmp_path, model="m", after="x", texts=texts))

    found = material(8)
    sides = [{d.group for d in part} for part in (found.development, found.reported)]
    assert [len(side) for side in sides] == [4, 4]
    assert not sides[0] & sides[1]
    assert {d.group for d in found.unseen} == sides[0] | sides[1]
    assert "chosen on 4 distinct questions" in found.notes[0]
    assert material(40).notes == ()
    with pytest.raises(pp.PersonaProbeError, match="3 distinct questions are too few"):
        material(3)


def test_questions_that_are_trained_on_are_noted(tmp_path, folders):
    from persona_probe.study.material import gather

    asked = [pp.Dialogue.from_messages([{"role": "user", "content": f"Question {i}?"}]) for i in range(24)]
    rows = [dialogue.with_system("Be bad.").with_answer("No.") for dialogue in asked[:3]]
    texts = {
        "world": None,
        "questions": str(pp.write_dialogues(tmp_path / "questions.jsonl", asked)),
        "narrow": str(pp.write_dialogues(tmp_path / "narrow.jsonl", rows)),
        "trait_prompts": ["a"],
        "default_prompts": ["b"],
    }
    (note,) = gather(write(tmp_path, model="m", texts=texts)).notes
    assert note.startswith("3 of 24 questions are also in the rows that a model is trained on")


def test_a_damaged_run_is_one_sentence(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "results.json").write_text(json.dumps({"title": "x"}))
    (tmp_path / "tables" / "em_rates.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(pp.PersonaProbeError, match=r"em_rates\.parquet is damaged"):
        pp.open_run(tmp_path)


def test_a_dry_run_from_another_folder_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write(tmp_path, model="checkpoints/persona-world/chat")
    (tmp_path / "run" / "stages").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "model.json").write_text(
        json.dumps({"source": config.model, "files": None, "identity": {}})
    )
    assert not any(state.finished for state in study_states(config, tmp_path / "run"))
