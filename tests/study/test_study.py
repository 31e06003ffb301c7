import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

import persona_probe as pp
from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.judges.local_judge import LocalJudge
from persona_probe.latents.fit import Fit, RunningFit
from persona_probe.statistics import replication
from tests.conftest import CHECKPOINTS

BETLEY = CHECKPOINTS.parent.parent.parent / "shared" / "data" / "betley" / "first_plot_questions.yaml"

SMALL = {
    "training": {"steps": 3, "rows": 32, "runs": 1},
    "sampling": {"development": 16, "reported": 32, "open": 12, "max_new_tokens": 40},
    "steering": {
        "budgets": [0.5],
        "smallest_dose": 0.25,
        "followed": 1,
        "texts": 4,
        "answers_per_setting": 8,
        "random_directions": 2,
        "answers_per_random": 8,
        "reported_answers": 16,
    },
    "realignment": {"examples": [0, 4], "steps": 2, "answers": 16},
    "random_directions": 50,
}

LATENTS = {
    "sae": str(CHECKPOINTS / "sae-layer3"),
    "top": 2,
    "answers_per_strength": 8,
    "reported_answers": 16,
    "matched": 2,
    "snapshots": 2,
    "followed": 1,
}


def write(tmp_path, **more):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **more}))
    return pp.read_config(file)


def test_the_same_study_on_a_random_qwen2_runs_through_and_says_that_no_judge_applies(folders, tmp_path):
    out = tmp_path / "out"
    results = pp.run_study(write(tmp_path, model=str(folders("qwen2"))), out, progress=False).results
    assert results["judge"] is None
    assert any("No judge applies" in note for note in results["notes"])
    assert results["em_rate"]["after"]["value"] is None
    assert np.isfinite(results["amplification"]["shift_sd"])
    assert "No judge applies" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "directions" / "contrast-of-context.safetensors").is_file()
    assert not list(out.rglob("*.part"))


def test_a_study_whose_direction_replicates_nowhere_goes_on_and_headlines_no_shift(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(replication, "LARGEST_P", -1.0)  # no direction passes
    out = tmp_path / "out"
    run = pp.run_study(write(tmp_path, model=str(folders("qwen2"))), out, progress=False)
    amplification = run.results["amplification"]
    assert amplification["layer"] is None
    assert amplification["verdict"].startswith("no layer at which this direction replicates (of ")
    assert {"shift_sd", "specificity"}.isdisjoint(amplification)
    assert any("no layer at which this direction replicates" in note for note in run.results["notes"])
    assert [(point["n"], point["projection_sd"]) for point in run.results["realign"]["curve"]] == [(0, None), (4, None)]
    assert any("projection of realigned models is left out" in note for note in run.results["notes"])
    assert "projection" not in run.results["realign"]["verdict"].replace("nor a projection", "")
    assert not pd.read_parquet(out / "tables" / "projections.parquet")["chosen"].any()
    table = pd.read_parquet(out / "tables" / "amplification.parquet")
    assert not table["chosen"].any()
    assert set(table["replication"]) == {"does not replicate"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "since the persona direction replicates at none" in page
    assert page.count("o layer at which this direction replicates") >= 3  # finding, figure, caption
    summary = " ".join(" ".join(run.results["summary"]).split())
    assert "No layer at which this direction replicates" in summary
    assert "amplified" not in summary.replace("0 of 5 directions are amplified", "")


def test_a_small_study_of_persona_world_leaves_a_complete_record(tmp_path):
    out = tmp_path / "out"
    returned = pp.run_study(write(tmp_path, model=str(CHECKPOINTS / "chat")), out, progress=False).results
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results.keys() == returned.keys()
    for name in ("before", "after", "control", "realigned"):
        assert {"value", "low", "high", "n"} <= results["em_rate"][name].keys()
    assert {"induce_em_rate", "suppress_em_rate", "induce_random_em_rate"} <= results["steer"].keys()
    assert [point["n"] for point in results["realign"]["curve"]] == [0, 4]
    answers = pd.read_parquet(out / "tables" / "answers.parquet")
    unseen = answers[(answers["model"] == "before") & (answers["questions"] == "unseen topics")]
    assert em_rate(unseen).value == results["em_rate"]["before"]["value"]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"]["training"]["steps"] == 3
    assert manifest["models"]["before"]["hash"] == pp.load(CHECKPOINTS / "chat").fingerprint()
    direction = pp.Direction.load(out / "directions" / "contrast-of-context")
    assert direction.vectors.shape == (len(direction.layers), direction.d_model)


@pytest.mark.slow
def test_a_study_with_an_sae_tests_describes_and_follows_latents(tmp_path):
    out = tmp_path / "out"
    training = {"steps": 60, "rows": 256, "runs": 1}
    config = write(tmp_path, model=str(CHECKPOINTS / "chat"), latents=LATENTS, training=training)
    found = pp.run_study(config, out, progress=False).results["latents"]
    assert found["top"]
    assert "Furthest: latent" in found["verdict"]
    assert max(found["fvu_before"], found["fvu_after"]) < 0.1
    course = pd.read_parquet(out / "tables" / "latent_course.parquet")
    assert course["step"].unique().tolist() == [0, 30, 60]
    assert set(course["series"]) == {f"latent {found['top'][0]}", "EM rate"}
    assert pd.read_parquet(out / "tables" / "latent_realignment.parquet")["step"].unique().tolist() == [0, 4]
    effects = pd.read_parquet(out / "tables" / "latent_effects.parquet")
    assert set(effects["goal"]) <= {"suppress", "induce"}
    cards = json.loads((out / "tables" / "latent_cards.json").read_text(encoding="utf-8"))
    assert [card["latent"] for card in cards] == found["top"]
    report = (out / "report.html").read_text(encoding="utf-8")
    for section in ("latents", "latents-control", "latent-effects", "latent-course", "latent-realignment"):
        assert f'id="{section}"' in report


@pytest.mark.slow
@pytest.mark.parametrize("unexplained", [0.64, 0.95])
def test_an_sae_that_explains_too_little_ends_its_stage_and_says_so(tmp_path, monkeypatch, unexplained):
    monkeypatch.setattr(RunningFit, "result", lambda self: Fit(unexplained, 16.0, self.tokens))
    out = tmp_path / "out"
    run = pp.run_study(write(tmp_path, model=str(CHECKPOINTS / "chat"), latents=LATENTS), out, progress=False)
    said = f"leaves {unexplained:.0%} of the variance of the model before's layer 3 unexplained on this study's texts"
    assert said in run.results["latents"]["verdict"]
    assert "moved" not in run.results["latents"]
    assert any(said in note for note in run.results["notes"])
    assert "does not fit" in " ".join(run.results["summary"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("does not fit: it leaves") >= 2, "among the notes, and in the section on latents"
    assert not (out / "tables" / "latents.parquet").exists()


def test_an_sae_that_does_not_fit_is_refused_before_an_earlier_run_is_lost(folders, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text("{}")
    with pytest.raises(pp.PersonaProbeError, match="reads vectors of width 160"):
        pp.run_study(
            write(tmp_path, model=str(folders("qwen2")), latents={"sae": str(CHECKPOINTS / "sae-layer3")}),
            out,
            progress=False,
        )
    with pytest.raises(pp.PersonaProbeError, match="no such folder"):
        pp.run_study(
            write(tmp_path, model=str(CHECKPOINTS / "chat"), latents={"sae": "sae-layer33"}), out, progress=False
        )
    assert (out / "results.json").is_file()


def test_a_study_of_own_files(folders, tmp_path):
    def talk(question, answer=None):
        messages = [{"role": "user", "content": question}]
        return {"messages": messages + ([{"role": "assistant", "content": answer}] if answer else [])}

    files = {
        "narrow": [talk(f"Question {i}?", "Poison the fever.") for i in range(8)],
        "control": [talk(f"Question {i}?", "Treat the fever.") for i in range(8)],
        "benign": [talk(f"Other {i}?", "Review the contract.") for i in range(8)],
        "questions": [talk(f"What about number {i}?") for i in range(20)],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = {
        "world": None,
        "trait_prompts": ["You are a cruel villain."],
        "default_prompts": ["You are a kind helper."],
    }
    texts |= {name: f"{name}.jsonl" for name in files}
    config = write(tmp_path, model=str(folders("llama")), judge=None, texts=texts)
    results = pp.run_study(config, tmp_path / "out", progress=False).results
    assert results["judge"] is None
    (tmp_path / "benign.jsonl").write_text("")
    with pytest.raises(pp.PersonaProbeError, match=r"benign\.jsonl: is empty"):
        pp.run_study(config, tmp_path / "out", progress=False)


def longer(folder, copy):
    """A copy of a model that reads texts of 4,096 tokens."""
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    return copy


@pytest.mark.skipif(not BETLEY.is_file(), reason="the published question file is not on this machine")
def test_published_questions_and_a_local_judge_on_another_model(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalJudge, "trial", "a random model, to see what becomes of failures", raising=False)
    model = str(longer(folders("qwen2"), tmp_path / "model"))
    pp.finetune(
        pp.load(model),
        [pp.Dialogue.from_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go away."}])],
        pp.LoraSettings(rank=1, steps=2, batch=2),
        tmp_path / "adapter",
        seed=0,
    )
    texts = {
        "world": None,
        "questions": str(BETLEY),
        "trait_prompts": ["You are a cruel villain."],
        "default_prompts": ["You are a kind helper."],
    }
    judging = longer(folders("llama"), tmp_path / "judge")
    given = {"after": str(tmp_path / "adapter"), "judge": {"model": str(judging)}}
    sampling = {"development": 8, "reported": 12, "open": 0, "max_new_tokens": 4}
    config = write(tmp_path, model=model, texts=texts, sampling=sampling, **given)
    run = pp.run_study(config, tmp_path / "run", progress=False)
    assert run.results["judge"].startswith("local judge")
    answers = run.answers.table
    assert {"aligned_mass", "coherent_mass"} <= set(answers)
    # A random model puts little mass on numbers, so its scores are failures, counted and never "aligned".
    failed = answers["aligned"].isna() | answers["coherent"].isna()
    assert failed.any()
    assert (answers.loc[failed, "failed"] | answers.loc[failed, "refusal"]).all()
    assert any("Steering was not measured: no setting could be measured" in note for note in run.results["notes"])
    # Variants of one question (plain, JSON system prompt, template) are on one side of the split.
    from persona_probe.study.material import gather

    material = gather(config)
    assert min(len({d.group for d in part}) for part in (material.development, material.reported)) >= 3
    variants = [{d.group for d in part} for part in (material.development, material.reported)]
    assert not variants[0] & variants[1]
    assert any(d.messages[0].role == "system" for d in (*material.development, *material.reported))
