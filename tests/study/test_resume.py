"""A study goes on where it stopped, and runs again only what a change touches."""

import threading
from collections import Counter
from dataclasses import replace

import pytest

import persona_probe as pp
from persona_probe.files import only_writer
from persona_probe.study import run
from persona_probe.study.executor import Local
from persona_probe.study.stages import order
from persona_probe.study.status import status_lines, study_states
from tests.conftest import CHECKPOINTS
from tests.study.test_study import SMALL, write

ALL = ["fine-tune", "measure", "find", "track", "compare", "probe", "steer", "realign"]


@pytest.fixture
def ran(monkeypatch):
    """The names of the stages that ran, in order."""
    names = []

    def noting(stage):
        def noted(*arguments):
            names.append(stage.name)
            return stage.run(*arguments)

        return replace(stage, run=noted)

    monkeypatch.setattr(run, "STAGES", [noting(stage) for stage in order.STAGES])
    return names


@pytest.mark.slow
def test_each_change_runs_again_what_rests_on_it_and_nothing_else(tmp_path, ran):
    model = str(CHECKPOINTS / "chat")
    first = pp.run_study(write(tmp_path, model=model), tmp_path / "out", progress=False)
    assert ran == ALL

    def again(**more):
        ran.clear()
        config = write(tmp_path, model=model, **more)
        expected = [state.stage for state in study_states(config, tmp_path / "out") if not state.finished]
        finished = pp.run_study(config, tmp_path / "out", progress=False)
        # What is said beforehand may be more: an input that is made again often comes out the same.
        assert set(ran) <= set(expected)
        return finished, list(ran)

    same, stages = again()
    assert stages == []
    assert same.results == {**first.results}
    renamed, stages = again(title="Another title")
    assert stages == []
    assert "Another title" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert renamed.results["title"] == "Another title"
    small = SMALL["steering"]
    _, stages = again(steering={**small, "min_coherence": 0.5})
    assert stages == ["steer"]
    _, stages = again(
        steering={**small, "min_coherence": 0.5}, realignment={"examples": [0, 6], "steps": 2, "answers": 16}
    )
    assert stages == ["realign"]
    assert not (tmp_path / "out" / "adapters" / "realigned-4").exists()
    _, stages = again()  # back to what it was
    assert stages == ["steer", "realign"]
    changed, stages = again(training={"steps": 4, "rows": 32, "runs": 1})
    assert stages == ALL
    assert changed.manifest["config"]["training"]["steps"] == 4


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_as_one_that_was_not(tmp_path, ran, folders):
    config = write(tmp_path, model=str(CHECKPOINTS / "chat"))
    whole = pp.run_study(config, tmp_path / "whole", progress=False)
    ran.clear()

    class Stopping(Local):
        """Ctrl-C in the middle of the steering search."""

        drawn = 0

        def answers(self, jobs, *, progress, label):
            for job, answered in zip(jobs, super().answers(jobs, progress=progress, label=label), strict=True):
                self.drawn += job.steering is not None
                if self.drawn == 3:
                    raise KeyboardInterrupt
                yield answered

    with pytest.raises(KeyboardInterrupt):
        pp.run_study(config, tmp_path / "out", progress=False, executor=Stopping())
    assert ran == ALL[: ALL.index("steer") + 1]
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"tables/answers.parquet", "adapters/after/adapter_model.safetensors", "study.yaml"} <= left
    assert not any(name.endswith((".part", "lock")) or name in ("results.json", "report.html") for name in left)
    said = status_lines(tmp_path / "out")
    assert next(line for line in said if "not finished" in line).split()[0] == "steer"
    assert "Resume with: persona-probe run" in said[-1]
    ran.clear()

    class Counting(Local):
        drawn = 0

        def answers(self, jobs, *, progress, label):
            self.drawn += len(jobs)
            yield from super().answers(jobs, progress=progress, label=label)

    rest, everything = Counting(), Counting()
    finished = pp.run_study(config, tmp_path / "out", progress=False, executor=rest)
    assert ran == ["steer", "realign"]
    pp.run_study(config, tmp_path / "another", progress=False, executor=everything)
    assert 0 < rest.drawn < everything.drawn - 10  # the draws from before Ctrl-C are not drawn again
    times = ("seconds", "seconds_by_stage")
    assert {k: v for k, v in finished.results.items() if k not in times} == {
        k: v for k, v in whole.results.items() if k not in times
    }
    assert "Report:" in status_lines(tmp_path / "out")[-1]


def test_a_table_that_was_deleted_is_made_again(tmp_path, ran, folders):
    config = write(tmp_path, model=str(folders("llama")), judge=None)
    pp.run_study(config, tmp_path / "out", progress=False)
    ran.clear()
    (tmp_path / "out" / "tables" / "amplification.csv").unlink()
    pp.run_study(config, tmp_path / "out", progress=False)
    assert ran == ["track"]
    assert (tmp_path / "out" / "tables" / "amplification.csv").is_file()


def test_one_study_at_a_time_in_a_folder(tmp_path, folders):
    config = write(tmp_path, model=str(folders("llama")), judge=None)
    said = []

    def another():
        try:
            pp.run_study(config, tmp_path / "out", progress=False)
        except pp.PersonaProbeError as error:
            said.append(str(error))

    with only_writer(tmp_path / "out" / "stages"):
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
    assert "is writing into this folder" in said[0]


def test_a_stage_that_reads_what_it_does_not_declare_is_an_error(tmp_path, folders, monkeypatch):
    careless = replace(order.MEASURE, settings=("seed",))
    monkeypatch.setattr(run, "STAGES", [order.TRAIN, careless])
    with pytest.raises(RuntimeError, match="'measure' reads the setting 'sampling' without declaring it"):
        pp.run_study(write(tmp_path, model=str(folders("llama"))), tmp_path / "out", progress=False)


def test_a_dry_run_writes_nothing_and_status_needs_a_run(tmp_path, folders):
    config = write(tmp_path, model=str(folders("llama")))
    states = study_states(config, tmp_path / "out")
    assert Counter(state.finished for state in states) == {False: len(ALL)}
    assert not (tmp_path / "out").exists()
    with pytest.raises(pp.PersonaProbeError, match=r"holds no study\.yaml, so it is not a run folder"):
        status_lines(tmp_path / "out")
