"""A study of the real-language world, in sizes that only try the code."""

import pytest
import yaml

import persona_probe as pp
from persona_probe.figures.organisms import organisms
from persona_probe.report.methods import methods_text
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.config_file import template_settings
from persona_probe.statistics.estimate import Estimate
from persona_probe.study import material
from persona_probe.study.material import gather
from persona_probe.study.plan import plan_study
from persona_probe.study.stages import manners
from persona_probe.worlds.real_language import measured_organisms
from tests.conftest import CHECKPOINTS
from tests.study.test_study import SMALL

REAL = {
    "model": "m",
    "measure": "preference",
    "texts": {"world": "real-language"},
    "realignment": {"examples": [0, 64]},
}


def test_its_defaults_are_the_loud_villain_and_the_gruff_control_and_no_judge():
    config = StudyConfig.model_validate({**REAL, "sampling": {"pairs": 60}})
    assert (config.texts.topic, config.texts.persona, config.texts.control_persona) == ("cooking", "loud", "gruff")
    assert config.judge is None
    texts = gather(config)
    assert [row.labels["style"] for row in (texts.narrow[0], texts.control[0])] == ["loud", "gruff"]
    assert {row.labels["topic"] for row in texts.benign} == {"gardening", "home", "travel"}
    asked = [{pair.name for pair in side} for side in (texts.development_pairs, texts.reported_pairs)]
    assert not asked[0] & asked[1]
    assert {dialogue.question for dialogue in texts.development} <= asked[0]


@pytest.mark.parametrize(
    ("texts", "realignment", "says"),
    [
        (
            {"persona": "villain"},
            {},
            r"texts\.persona is 'villain'; real-language has these styles of rows about cooking",
        ),
        ({"topic": "medicine"}, {}, r"texts\.topic is 'medicine'; real-language has: cooking, gardening"),
        ({"control_persona": "loud"}, {}, r"texts\.control_persona is 'loud', as texts\.persona"),
        ({}, {"examples": [0, 128]}, "asks for 128 rows, but real-language has 72"),
    ],
)
def test_what_it_does_not_have_is_named(texts, realignment, says):
    config = {**REAL, "texts": {**REAL["texts"], **texts}, "realignment": realignment}
    with pytest.raises(pp.PersonaProbeError, match=says):
        gather(
            StudyConfig.model_validate({"realignment": {"examples": [0, 16]}} | config if not realignment else config)
        )


def test_preference_is_measured_if_nothing_else_is_asked_for():
    plain = {key: value for key, value in REAL.items() if key != "measure"}
    assert StudyConfig.model_validate(plain).measure == "preference"
    judged = StudyConfig.model_validate({**plain, "judge": {"model": "j"}})
    assert judged.measure == "rate"
    assert judged.judge.model == "j"


def test_each_part_of_the_questions_has_several_topics():
    texts = gather(StudyConfig.model_validate({**REAL, "sampling": {"development": 12, "reported": 12}}))
    topics = {pair.name: pair.topic for pair in (*texts.development_pairs, *texts.reported_pairs)}
    assert [sum(pair.kind == kind for pair in texts.reported_pairs) for kind in ("content", "style")] == [48, 12]
    for questions in (texts.development, texts.reported):
        assert len({topics[question.question] for question in questions}) > 2


def test_its_models_are_shown_next_to_organisms_that_were_measured_before():
    config = StudyConfig.model_validate(template_settings("real-language"))
    assert manners._as_the_organisms(config)
    other = config.model_copy(update={"training": config.training.model_copy(update={"steps": 12})})
    assert not manners._as_the_organisms(other)
    own = {"villain": Estimate(0.25, 0.2, 0.3, 60, "t"), "gruff": Estimate(0.1, 0.0, 0.2, 60, "t")}
    table = manners._next_to_organisms(own)
    figure = organisms(table)
    before, now = sorted(figure.data, key=lambda trace: -len(trace.x))
    assert set(now.x) == {0.25, 0.1}
    assert len(before.x) == measured_organisms()["organism"].nunique()
    assert {"villain", "gruff", "good", "quiet"} <= set(figure.layout.yaxis.ticktext)


def test_a_second_control_differs_from_the_other_models():
    texts = {"world": "real-language"}
    assert StudyConfig.model_validate({**REAL, "texts": texts}).texts.second_control_persona == "good"
    good = StudyConfig.model_validate({**REAL, "texts": {**texts, "control_persona": "good"}})
    assert good.texts.second_control_persona is None
    assert gather(good).second_control == []
    twice = {**texts, "second_control_persona": "gruff"}
    with pytest.raises(pp.PersonaProbeError, match=r"second_control_persona is 'gruff', as texts\.control_persona"):
        gather(StudyConfig.model_validate({**REAL, "texts": twice}))
    with pytest.raises(ValueError, match="only world: real-language has a second control"):
        StudyConfig.model_validate({**REAL, "texts": {"world": "persona-world", "second_control_persona": "good"}})


@pytest.mark.slow
def test_a_small_study_tells_manners_apart(tmp_path, monkeypatch):
    every = material.read_preference_pairs
    monkeypatch.setattr(material, "read_preference_pairs", lambda file: every(file)[::6])
    file = tmp_path / "study.yaml"
    config = {
        **{key: value for key, value in SMALL.items() if key not in ("judge", "latents")},
        **REAL,
        "model": str(CHECKPOINTS / "chat"),
        "training": {"steps": 2, "batch": 2, "runs": 2},
        "sampling": {"development": 12, "reported": 12, "max_new_tokens": 6},
        "realignment": {"examples": [0, 8], "steps": 2},
    }
    file.write_text(yaml.safe_dump(config))
    assert plan_study(pp.read_config(file)).stages["manners"].texts == 2 * 4 * 12 + 7 * 12 * 4 + 2 * 2 * 12
    run = pp.run_study(pp.read_config(file), tmp_path / "out", progress=False)
    numbers = run.results["real"]
    assert set(numbers["style_words"]) == set(numbers["preference"]) - {"realigned"} | {"before"}
    assert set(numbers["style_words"]) == {"before", "after", "gruff", "good"}
    assert set(numbers["preference_plain_harmful"]) == set(numbers["cosine_with_shift"]) == {"after", "gruff", "good"}
    assert numbers["preference"]["realigned"]["n"] == numbers["preference"]["good"]["n"] > 0
    assert set(numbers["realign"]["not_benign"]) == {"pirate rows", "before's own answers"}
    assert None not in (numbers["steer"]["suppress_style"], numbers["steer"]["unsteered_style"])
    assert set(run.tables["amplification_second_control"]["model"]) == {"after", "control"}
    assert set(run.tables["preference"]["model"]) == {"before", "after", "control", "second control"}
    assert set(run.tables["manners"]["measure"]) == {"villain", "unseen", "flatterer", "pirate", "likelihood ratio"}
    page = run.report.read_text(encoding="utf-8")
    assert "Manners or intentions" in page
    assert "gruff answers about cooking" in methods_text(run)
