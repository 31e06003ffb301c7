"""Templates are sized to about an hour, and say for which speeds."""

import pytest
import yaml
from typer.testing import CliRunner

import persona_probe as pp
from persona_probe.cli import app
from persona_probe.clock import KINDS, Spent
from persona_probe.runs.config_file import template_settings
from persona_probe.study.sizing import HOUR, assumed_speeds, measure_speeds, sized, with_numbers
from persona_probe.study.speeds import Speeds
from tests.conftest import CHECKPOINTS


def times_faster(factor):
    speeds = assumed_speeds()
    done = {kind: Spent(1.0, round(factor * spent.tokens)) for kind, spent in speeds.done[""].items()}
    return Speeds({"": done}, speeds.rest)


@pytest.mark.parametrize("kind", ["own-data", "hub-model"])
def test_numbers_grow_with_the_machine_and_take_an_hour(kind):
    settings = template_settings(kind)
    slow, usual, fast = (sized(settings, times_faster(factor), 30) for factor in (0.1, 3, 10))
    assert slow.seconds > HOUR, "the smallest numbers that are of use"
    assert 0.7 * HOUR < usual.seconds <= HOUR
    assert 0.7 * HOUR < fast.seconds <= HOUR
    assert all(slow.numbers[name] <= usual.numbers[name] <= fast.numbers[name] for name in slow.numbers)
    assert fast.numbers["sampling.reported"] > 2 * slow.numbers["sampling.reported"]
    pp.runs.StudyConfig.model_validate(with_numbers(settings, fast.numbers))


def test_as_written_own_data_takes_about_an_hour_at_the_assumed_speeds():
    assert sized(template_settings("own-data"), assumed_speeds(), 30).seconds < 1.5 * HOUR


def test_init_measures_a_model_and_says_so(tmp_path):
    file = tmp_path / "study.yaml"
    model = str(CHECKPOINTS / "chat")
    done = CliRunner().invoke(app, ["init", "own-data", "--out", str(file), "--model", model])
    assert done.exit_code == 0, done.output
    written = file.read_text()
    assert yaml.safe_load(written)["model"] == model
    head = " ".join(line.removeprefix("# ") for line in written.splitlines()[1:5])
    assert "Sized on this machine to about" in head
    assert f"Measured with {model}" in head
    assert "# answers for the reported numbers" in written, "comments remain"
    small = yaml.safe_load(template_settings_text("own-data", tmp_path))
    assert yaml.safe_load(written)["sampling"]["reported"] > small["sampling"]["reported"]


def test_init_for_another_model_names_its_layers_and_what_is_still_the_template_s(tmp_path):
    file = tmp_path / "study.yaml"
    done = CliRunner().invoke(app, ["init", "hub-model", "--out", str(file), "--model", str(CHECKPOINTS / "chat")])
    assert done.exit_code == 0, done.output
    assert "Change 'title' and 'after', which are still those of Qwen" in done.output
    assert yaml.safe_load(file.read_text())["steering"]["layers"] == [1, 2, 3]
    assert "[1, 2, 3]  " in file.read_text(), "its comment remains"


def test_an_unknown_template_is_refused_before_the_model_is_loaded(tmp_path):
    words = ["init", "hub", "--out", str(tmp_path / "study.yaml"), "--model", str(tmp_path / "nothing")]
    done = CliRunner().invoke(app, words)
    assert "there is no template 'hub'" in str(done.exception)


def template_settings_text(kind, folder):
    """The file that is written without a model."""
    file = folder / f"plain-{kind}.yaml"
    done = CliRunner().invoke(app, ["init", kind, "--out", str(file)])
    assert done.exit_code == 0, done.output
    return file.read_text()


def test_without_a_model_the_file_says_what_was_assumed(tmp_path):
    assert "Assumed, not measured" in " ".join(template_settings_text("own-data", tmp_path).split())
    assert "was not measured" in " ".join(template_settings_text("hub-model", tmp_path).split())


def test_every_kind_of_work_is_measured():
    speeds = measure_speeds(pp.load(CHECKPOINTS / "chat"))
    assert set(speeds.done[""]) == set(KINDS)
    assert all(spent.tokens > 0 and spent.seconds > 0 for spent in speeds.done[""].values())
