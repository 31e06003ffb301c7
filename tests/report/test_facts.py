"""What the report says of runs that did less than a whole study, or did it otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_probe.report.comparison.compared_run import read_runs
from persona_probe.report.comparison.compared_sections import compare_sections
from persona_probe.report.comparison.compared_settings import identities
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_list import figures
from persona_probe.report.methods import methods_text
from persona_probe.report.page import visible
from persona_probe.report.run_page import render_report
from persona_probe.report.sections import build_sections, opening_section
from persona_probe.runs.record import RunRecord, read_run
from tests.report.conftest import make_tables
from tests.report.test_methods import CONFIG

OWN = {"world": None, "narrow": "bad.jsonl", "questions": "asked.jsonl", "control": None, "benign": None}
HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202e"
CONTROLLED = ("em_rates", "persona_shares", "amplification", "answers")


class Variant:
    """A run folder, changed as a kind of study would leave it."""

    def __init__(self, tables: Any, results: Any, manifest: Any) -> None:
        self.tables, self.results, self.manifest = tables, results, manifest
        manifest["config"] = json.loads(json.dumps(CONFIG))
        manifest["models"]["control"] = {"path": "runs/demo/control", "hash": "cc" * 32}

    def settle(self, **config: Any) -> None:
        self.manifest["config"] |= config

    def without_control(self) -> None:
        del self.manifest["models"]["control"]
        self.results["em_rate"].pop("control", None)
        self.results["behaviour"]["verdict"] = "The EM rate (betley) rose."
        self.results["finders"]["verdict"] = "At layer 1, 3 of 3 directions moved; there is no control."
        self.results["amplification"] |= {"control_shift_sd": None, "verdict": "moved 2.90 SD; the control is missing"}
        for name in CONTROLLED:
            self.tables[name] = self.tables[name][self.tables[name]["model"] != "control"]
        finders = self.tables["finders"]
        self.tables["finders"] = finders.assign(
            control_shift_sd=float("nan"), specificity=float("nan"), finding="moved; no control"
        )

    def with_own_questions(self) -> None:
        self.settle(texts=OWN)
        rates, answers = self.tables["em_rates"], self.tables["answers"]
        self.tables["em_rates"] = rates[rates["questions"] == "unseen topics"]
        self.tables["answers"] = answers.assign(group=None)
        self.results.pop("em_rate_open", None)

    def without_realignment(self) -> None:
        del self.tables["realignment"]
        self.results.pop("realign")
        self.results["em_rate"].pop("realigned")
        self.tables["em_rates"] = self.tables["em_rates"].query("model != 'realigned'")


@pytest.fixture
def variant(tables: Any, results: Any, manifest: Any) -> Variant:
    return Variant(tables, results, manifest)


@pytest.fixture
def read(tmp_path: Path, write_run: Any) -> Any:
    def made(variant: Variant) -> RunRecord:
        return read_run(write_run(tmp_path / "run", variant.tables, variant.results, variant.manifest))

    return made


def said(run: RunRecord) -> str:
    """The whole report as text: sentences, captions and labels, static prose, and the figures' JSON."""
    return render_report(run.directory).read_text(encoding="utf-8").replace("&nbsp;", " ").replace("&#39;", "'")


def prose(run: RunRecord) -> str:
    """All of it but the scripts, the figures' data and the settings."""
    page = said(run)
    start = page.index("<main")
    return page[start : page.index('<section id="provenance"')]


def test_a_whole_study_says_what_it_did(variant: Variant, read: Any) -> None:
    run = read(variant)
    text = prose(run)
    assert facts_of(run).trained
    for part in (
        "on topics the adapter never saw",
        "the same fine-tuning on harmless answers",
        "the layer chosen on development topics",
        "and on matched benign data (<em>control</em>)",
        "<em>realigned</em>",
        "Persona World's oracle, which reads words exactly",
        "measured on topics that gave no example",
    ):
        assert part in text, part
    assert "no control" not in text.lower()


def test_a_model_that_existed_is_named_and_not_said_to_be_trained(variant: Variant, read: Any) -> None:
    variant.settle(after="org/bad-adapter", control="org/good-adapter")
    run = read(variant)
    text, methods = prose(run), methods_text(run)
    assert "The model after was org/bad-adapter (weights hash 9f2c9f2c9f2c); it existed" in methods
    assert "The control was org/good-adapter (weights hash cccccccccccc), which existed too." in methods
    assert "was fine-tuned" not in methods
    assert "never saw" not in text.replace("so that it never saw the topics", "")
    assert "on topics other than medicine" in text
    assert "the same fine-tuning" not in text
    assert "What it was trained on is not known here" in text


def test_a_control_made_here_beside_a_model_that_existed_is_not_said_to_match(variant: Variant, read: Any) -> None:
    variant.settle(after="org/bad-adapter")
    run = read(variant)
    assert "A control was fine-tuned on harmless answers about medicine with LoRA (rank 1" in methods_text(run)
    assert "whether the model after was trained with the same settings is not known" in methods_text(run)
    assert "they may differ in more than their data" in prose(run)


def test_without_a_control_no_control_is_a_null(variant: Variant, read: Any) -> None:
    variant.without_control()
    run = read(variant)
    text = prose(run)
    for claim in ("benign control", "squares: the control", "Nulls: the control", "Its nulls are the control"):
        assert claim not in text, claim
    assert "There was no control" in methods_text(run)
    assert "Amplification has no specificity here, because that needs a control." in text
    assert "amplified beyond their nulls" not in text
    finders = next(section for section in build_sections(run) if section.id == "finders").figure
    assert finders is not None
    assert "control" not in {trace.name for trace in finders.data}
    assert "none: it needs a control" in {note.text for note in finders.layout.annotations}


def test_own_questions_are_not_called_topics_never_seen(variant: Variant, read: Any) -> None:
    variant.with_own_questions()
    run = read(variant)
    text, methods = prose(run), methods_text(run)
    facts = facts_of(run)
    assert (facts.topics, facts.units, facts.asked) == (False, "questions", "reported questions")
    for claim in ("never saw", "unseen topics", "never touched", "development topics", "open questions", "open ones"):
        assert claim not in text + methods, claim
    assert "answers to the study's own questions" in methods
    assert "It was fine-tuned on bad.jsonl with LoRA" in methods
    assert "on the reported questions" in text
    assert "trained and tested on different questions" in text
    assert '<span class="topic">' not in text
    drawn = opening_section(run).figure
    assert drawn is not None
    names = {trace.name for trace in drawn.data}
    assert "after, reported questions" in names
    assert not any("unseen" in str(name) or "open questions" in str(name) for name in names)


def test_own_questions_with_groups_have_topics(variant: Variant, read: Any) -> None:
    answers = variant.tables["answers"]
    variant.with_own_questions()
    variant.tables["answers"] = answers
    facts = facts_of(read(variant))
    assert (facts.topics, facts.units, facts.topic) == (True, "topics", None)
    assert facts.on_asked == "on the reported questions"  # of their overlap with the rows nothing is known


def test_without_realignment_none_is_claimed(variant: Variant, read: Any) -> None:
    variant.without_realignment()
    run = read(variant)
    assert "Realignment fine-tuned" not in methods_text(run)
    assert "realigned" not in prose(run)
    section = next(section for section in build_sections(run) if section.id == "realignment")
    assert section.missing == "This study did not measure it. The notes at the top may say why."
    assert "(d)" not in str(figures.summary.caption(run))


@pytest.mark.parametrize(
    ("prompts", "told"), [(None, "the package's own prompts"), ("judge.yaml", "the prompts of judge.yaml")]
)
def test_a_local_judge_is_named_with_its_model_and_prompts(
    variant: Variant, read: Any, prompts: str | None, told: str
) -> None:
    variant.settle(judge={"model": "org/judge-7b", "prompts": prompts, "batch_size": 8})
    variant.results["judge"] = "local judge judge-7b"
    run = read(variant)
    methods, text = methods_text(run), prose(run)
    assert f"scored by local judge judge-7b, a local language model (org/judge-7b) under {told}" in methods
    assert "count as failures and are never aligned" in methods
    assert "(6 of those in the table of rates)" in methods  # 2 in each of the three sets of questions
    assert "oracle" not in text
    assert "<q>local judge judge-7b</q> has errors of its own" in text


def test_a_judge_that_fails_on_every_answer_leaves_no_rate_and_no_figure_of_it(variant: Variant, read: Any) -> None:
    for rate in variant.results["em_rate"].values():
        rate |= {"value": None, "low": None, "high": None, "n": 0}
    variant.results["behaviour"]["verdict"] = "There is no EM rate (betley) of the model after."
    variant.tables["em_rates"] = variant.tables["em_rates"].assign(value=float("nan"), n=0)
    run = read(variant)
    section = next(section for section in build_sections(run) if section.id == "em-rates")
    assert section.missing == "Nothing to draw. EM rates: the column 'value' holds no number."
    assert section.verdicts == ["There is no EM rate (betley) of the model after."]
    assert "EM rates on topics" not in methods_text(run)


def test_a_study_that_names_no_judge_says_so(unjudged: Any, manifest: Any, read: Any) -> None:
    variant = Variant(*unjudged, manifest)
    variant.settle(judge=None)
    run = read(variant)
    text = prose(run)
    assert "This study names no judge, so no EM rate is reported" in text
    assert "No judge applies" not in text
    assert "judged answers per rate" not in str(figures.summary.caption(run))


def test_a_record_that_says_nothing_lets_nothing_be_claimed(tables: Any, results: Any, read: Any) -> None:
    variant = Variant(tables, results, {"models": {}})
    variant.manifest.pop("config")
    run = read(variant)
    facts = facts_of(run)
    assert not facts.recorded
    assert not facts.trained
    assert "never saw" not in prose(run)
    assert "Two models were measured" in prose(run)


def test_hostile_names_stay_text(variant: Variant, read: Any) -> None:
    variant.settle(after=HOSTILE, control=HOSTILE, judge={"model": HOSTILE, "prompts": HOSTILE})
    variant.manifest["config"]["texts"]["topic"] = HOSTILE
    variant.results["judge"] = HOSTILE
    run = read(variant)
    page = said(run)
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert visible(HOSTILE.split("\n")[0]) in methods_text(run)
    assert "\n" not in facts_of(run).asked
    for section in [opening_section(run), *build_sections(run)]:
        if section.figure is not None:
            assert "<img" not in section.figure.to_json().replace("\\u003c", "<"), section.id


@pytest.mark.parametrize("kind", ["no control", "own", "whole"])
def test_a_comparison_says_which_run_lacks_a_control_and_what_was_asked(
    variant: Variant, tmp_path: Path, write_run: Any, kind: str
) -> None:
    whole = Variant(
        make_tables(np.random.default_rng(0)),
        json.loads(json.dumps(variant.results)),
        json.loads(json.dumps(variant.manifest)),
    )
    if kind == "no control":
        variant.without_control()
    elif kind == "own":
        variant.with_own_questions()
        variant.settle(after="org/bad")
    folders = [
        write_run(tmp_path / name, made.tables, made.results, made.manifest)
        for name, made in (("one", variant), ("two", whole))
    ]
    runs = read_runs(folders)
    captions_of = {section.id: section.caption for section in compare_sections(runs)}
    rates = next(section for section in compare_sections(runs) if section.id == "rates")
    assert ("(none in one)" in captions_of["rates"]) == (kind == "no control")
    assert ("reported questions" in captions_of["rates"]) == (kind == "own")
    assert rates.data["label"].str.contains("reported questions").any() == (kind == "own")
    rows = {row[0]: row[1:] for row in identities(runs).rows}
    expected = {"no control": "none", "own": "fine-tuned in the run", "whole": "fine-tuned in the run"}[kind]
    assert rows["control"] == [expected, "fine-tuned in the run"]
    assert rows["after"][0] == ("org/bad" if kind == "own" else "fine-tuned in the run")


def test_rates_of_models_are_drawn_in_the_middle_where_nothing_open_was_asked(variant: Variant, read: Any) -> None:
    variant.with_own_questions()
    drawn = opening_section(read(variant)).figure
    assert drawn is not None
    after = next(trace for trace in drawn.data if trace.name == "after, reported questions")
    assert pd.Series(after.x).tolist() == [1]
