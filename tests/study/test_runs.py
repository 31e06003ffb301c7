"""Several fine-tuning runs of a study: they differ, the first is what it is alone, and none is trained twice."""

import shutil

import pytest

import persona_probe as pp
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.folder import RunFolder
from persona_probe.study import run
from persona_probe.study.executor import Local
from persona_probe.study.pipeline import Pipeline
from persona_probe.study.sources import identity_of, optional_of
from persona_probe.study.stages import train
from persona_probe.study.stages.find import FIND
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.track import TRACK
from persona_probe.study.stages.train import TRAIN
from tests.study.test_study import write


@pytest.fixture(scope="module")
def model(folders):
    return folders("llama")


@pytest.fixture(scope="module")
def study(model):
    def settings(folder, runs=3, **more):
        training = {"steps": 2, "rows": 16, "batch": 4, "runs": runs}
        return write(folder, model=str(model), judge=None, training=training, **more)

    return settings


def go(config, out, *stages):
    """Run some stages; the pipeline afterwards, and the names of those that ran."""
    context = run._prepared(config, RunFolder.open(out), False, Local())
    pipeline = Pipeline(stages, context, identity_of(context.before, config), optional_of(config))
    ran = [name for name, reused in pipeline.run() if not reused]
    return pipeline, ran


@pytest.fixture
def trainings(monkeypatch):
    """The names of the adapters that were trained, in order; ``stop`` is the number of the training that is stopped."""

    class Trainings(list):
        stop = None

    done = Trainings()
    finetune = train.finetune

    def noting(model, rows, settings, folder, **more):
        if len(done) == done.stop:
            done.stop = None
            raise KeyboardInterrupt
        done.append(folder.name)
        return finetune(model, rows, settings, folder, **more)

    monkeypatch.setattr(train, "finetune", noting)
    return done


def test_runs_differ_and_the_first_is_that_of_a_study_of_one_run(tmp_path, study, trainings):
    pipeline, _ = go(study(tmp_path, 3), tmp_path / "out", TRAIN, FURTHER)
    runs = [pipeline.outcome("fine-tune"), *pipeline.outcome("further-runs")]
    assert len({one.hashes[name] for one in runs for name in ("after", "control")}) == 6
    seeds = [one.seed for one in runs]
    assert seeds[0] == 0
    assert len(set(seeds)) == 3
    assert pipeline.records["further-runs"].results["fine_tuning"] == {"n_runs": 3, "seeds": seeds}
    alone, ran = go(study(tmp_path, 1), tmp_path / "alone", TRAIN, FURTHER)
    assert ran == ["fine-tune"]
    assert alone.outcome("fine-tune") == runs[0]
    trainings.clear()
    fewer, ran = go(study(tmp_path, 2), tmp_path / "out", TRAIN, FURTHER)
    assert ran == ["further-runs"]
    assert trainings == []
    assert fewer.outcome("further-runs") == runs[1:2]
    left = {path.name for path in (tmp_path / "out" / "adapters").iterdir()}
    assert left == {"after", "control", "after-run1", "control-run1"}
    go(study(tmp_path, 1), tmp_path / "out", TRAIN, FURTHER)
    assert {path.name for path in (tmp_path / "out" / "adapters").iterdir()} == {"after", "control"}
    go(study(tmp_path, 1, seed=1), tmp_path / "out", TRAIN, FURTHER)
    assert trainings == ["after", "control"]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_study_that_is_stopped_between_trainings_repeats_none_of_them(tmp_path, study, trainings, stop):
    trainings.stop = stop
    with pytest.raises(KeyboardInterrupt):
        go(study(tmp_path, 2), tmp_path / "out", TRAIN, FURTHER)
    pipeline, _ = go(study(tmp_path, 2), tmp_path / "out", TRAIN, FURTHER)
    assert trainings == ["after", "control", "after-run1", "control-run1"]
    assert sum(record.reused for record in pipeline.records.values()) == 1  # so its seconds do not count as a speed
    assert not list((tmp_path / "out" / "stages").glob("*.files"))
    weights = tmp_path / "out" / "adapters" / "control" / "adapter_model.safetensors"
    shutil.copyfile(tmp_path / "out" / "adapters" / "after" / weights.name, weights)
    (tmp_path / "out" / "stages" / "fine-tune.json").unlink()
    again, _ = go(study(tmp_path, 2), tmp_path / "out", TRAIN, FURTHER)
    assert trainings[4:] == ["control"]  # what was trained has other weights by now
    assert again.outcome("fine-tune") == pipeline.outcome("fine-tune")


@pytest.fixture(scope="module")
def organisms(tmp_path_factory, study, model):
    """Two runs each of a narrow and a benign fine-tune, as somebody else made them; one of them a full model."""
    folder = tmp_path_factory.mktemp("organisms")
    pipeline, _ = go(study(folder, 2), folder / "out", TRAIN, FURTHER)
    del pipeline
    adapters = folder / "out" / "adapters"
    merged = pp.load(model, adapter=adapters / "after-run1", merge=True)
    merged.hf.save_pretrained(folder / "full")
    merged.tokenizer.save_pretrained(folder / "full")
    return {
        "after": [adapters / "after", folder / "full"],
        "control": [adapters / "control", adapters / "control-run1"],
    }


def test_runs_of_models_that_exist_are_joined_for_amplification_alone(tmp_path, study, organisms, trainings):
    given = {name: [str(path) for path in paths] for name, paths in organisms.items()}
    last = shutil.copytree(organisms["control"][1], tmp_path / "mine")
    config = study(tmp_path, after=given["after"], control=[given["control"][0], str(last)])
    stages = (TRAIN, FURTHER, FIND, TRACK)
    pipeline, _ = go(config, tmp_path / "out", *stages)
    assert trainings == []
    assert set(pipeline._context.models) == {"before", "after", "control"}
    tracked = pipeline.outcome("track")
    assert tracked.captures.runs == 2
    assert len(tracked.captures.before) == 2 * len(tracked.texts)
    assert pipeline.records["track"].results["amplification"]["n_runs"] == 2
    # Each part is what the models of that run read alone.
    second = go(study(tmp_path, after=given["after"][1], control=str(last)), tmp_path / "second", *stages)[0]
    alone = second.outcome("track").captures
    for name in ("before", "after", "control"):
        joined, own = (getattr(captures, name).values for captures in (tracked.captures, alone))
        assert abs(joined[len(own) :] - own).max() < 1e-4, name
    _, ran = go(config, tmp_path / "out", *stages)
    assert ran == []
    shutil.copyfile(organisms["after"][0] / "adapter_model.safetensors", last / "adapter_model.safetensors")
    _, ran = go(config, tmp_path / "out", *stages)
    assert ran == ["further-runs", "track"]


def test_a_copy_of_a_run_is_not_another_run(tmp_path, study, organisms):
    copy = shutil.copytree(organisms["after"][0], tmp_path / "copy")
    config = study(
        tmp_path, after=[str(organisms["after"][0]), str(copy)], control=list(map(str, organisms["control"]))
    )
    with pytest.raises(pp.PersonaProbeError, match=r"copy: has the same weights as .*after, so it is not another run"):
        go(config, tmp_path / "out", TRAIN, FURTHER)


def test_what_is_trained_next_to_given_models_is_trained_as_often(tmp_path, study, organisms, trainings):
    given = [str(path) for path in organisms["after"]]
    go(study(tmp_path, 3, after=given), tmp_path / "out", TRAIN, FURTHER)
    assert trainings == ["control", "control-run1"]
    alone = study(tmp_path, 3, after=given[0])
    pipeline, _ = go(alone, tmp_path / "alone", TRAIN, FURTHER, FIND, TRACK)
    assert any("'after' names one model, so 'control'" in note for note in pipeline.records["track"].notes)
    assert pipeline.outcome("track").captures.runs == 1


def test_a_typo_in_a_further_model_is_refused_before_anything_is_trained(tmp_path, study, organisms, trainings):
    config = study(tmp_path, control=[str(organisms["control"][0]), str(tmp_path / "typo")])
    with pytest.raises(pp.PersonaProbeError, match="typo"):
        go(config, tmp_path / "out", TRAIN, FURTHER)
    assert trainings == []


def test_the_plan_counts_the_runs(tmp_path, study):
    from persona_probe.study.plan import plan_study

    one, three = (plan_study(study(tmp_path, runs)).stages for runs in (1, 3))
    assert three["further-runs"].trained_tokens == 2 * one["fine-tune"].trained_tokens
    assert three["track"].texts > one["track"].texts
    assert "further-runs" not in one
    assert {name: work for name, work in three.items() if name in one and name != "track"} == {
        name: work for name, work in one.items() if name != "track"
    }
    assert StudyConfig(model="m").training.runs == 3
