import json
from importlib import resources

import pytest
import yaml
from typer.testing import CliRunner

import persona_probe as pp
from persona_probe.cli import app
from persona_probe.runs.config import StudyConfig, n_runs
from persona_probe.runs.config_file import config_as_yaml, schema, template_names, write_template
from tests.conftest import CHECKPOINTS


def test_the_published_schema_is_that_of_the_settings():
    published = resources.files("persona_probe.runs") / "study.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == schema(), (
        "run: python -m persona_probe.runs.config_file"
    )


def test_the_schema_tells_editors_what_every_field_is():
    made = schema()
    sections = [made, *made["$defs"].values()]
    untold = [name for part in sections for name, field in part["properties"].items() if not field.get("description")]
    assert untold == []
    assert all(part["additionalProperties"] is False for part in sections)


@pytest.mark.parametrize("kind", template_names())
def test_every_template_is_a_study_that_is_understood(tmp_path, kind):
    file, beside = write_template(kind, tmp_path / "mine" / "study.yaml")
    assert beside.name in file.read_text(encoding="utf-8").splitlines()[0]
    config = pp.read_config(file)
    assert json.loads(beside.read_text(encoding="utf-8")) == schema()
    assert isinstance(config.title, str)
    with pytest.raises(pp.PersonaProbeError, match="exists already"):
        write_template(kind, file)


def test_outside_a_clone_the_template_names_the_models_where_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = pp.read_config(write_template("persona-world", tmp_path / "study.yaml")[0])
    assert pp.load(config.model).n_layers == 5
    assert (CHECKPOINTS / "sae-layer3").samefile(config.latents.sae)


def test_what_a_run_was_made_with_is_read_as_the_same_settings(tmp_path):
    config = StudyConfig.model_validate(
        {"model": str(CHECKPOINTS / "chat"), "judge": {"model": str(CHECKPOINTS / "chat")}}
    )
    (tmp_path / "study.yaml").write_text(config_as_yaml(config), encoding="utf-8")
    assert pp.read_config(tmp_path / "study.yaml") == config


def test_runs_of_models_that_exist_are_found_from_the_files_folder(tmp_path):
    (tmp_path / "seed-0").mkdir()
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"model": "m", "after": ["seed-0", "owner/seed-1"], "control": ["c", "d"]}))
    config = pp.read_config(file)
    assert config.after == (str(tmp_path / "seed-0"), "owner/seed-1")
    assert n_runs(config) == 2
    assert n_runs(StudyConfig(model="m")) == 3
    assert n_runs(StudyConfig(model="m", control="c")) == 1
    file.write_text(config_as_yaml(config))
    assert pp.read_config(file) == config


def test_init_writes_a_study_that_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(CHECKPOINTS.parent.parent)
    out = tmp_path / "study.yaml"
    shown = CliRunner().invoke(app, ["init", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    dry = CliRunner().invoke(app, ["run", str(out), "--out", str(tmp_path / "run"), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "latents-realigned  runs (not finished yet)" in dry.output
    assert "2,218,400 parameters" in dry.output
    assert isinstance(CliRunner().invoke(app, ["init", "nonsense", "--out", str(out)]).exception, pp.PersonaProbeError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"training": {"runs": 0}}, "training.runs is 0"),
        ({"training": {"runs": "two"}}, "training.runs is 'two'"),
        ({"training": {"rnus": 2}}, r"unknown key 'training.rnus'; did you mean 'runs'\?"),
        ({"after": []}, r"after is \[\]: the list is empty"),
        ({"after": ["a", 3]}, "after.1 is 3"),
        ({"after": ["a", "b", "a"]}, "'a' is named twice"),
        (
            {"after": ["a", "b", "c"], "control": "d"},
            r"'after' names 3 model\(s\) and 'control' 1, .*: give as many of both",
        ),
        ({"judge": "gpt-4o"}, r"judge is 'gpt-4o'.* \{model: FOLDER_OR_ID\}, or \{api: openai, model: NAME\}"),
        ({"judge": {"modle": "x"}}, r"unknown key 'judge.modle'; did you mean 'model'\?"),
        ({"judge": {"model": "x", "batch_size": 0}}, "judge.batch_size is 0"),
        ({"texts": {"world": None, "questions": "q.jsonl"}}, "trait_prompts, default_prompts"),
        (
            {"texts": {"world": None, "questions": "q", "trait_prompts": ["a"], "default_prompts": ["b"]}},
            "nothing makes the model after",
        ),
        (
            {
                "after": "x",
                "texts": {
                    "world": None,
                    "questions": "q",
                    "narrow": "n",
                    "trait_prompts": ["a"],
                    "default_prompts": ["b"],
                },
            },
            "leave one of them out",
        ),
    ],
)
def test_what_does_not_fit_together_is_said(tmp_path, text, said):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"model": "m", **text}))
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        pp.read_config(file)
    assert len(str(error.value)) < 400
