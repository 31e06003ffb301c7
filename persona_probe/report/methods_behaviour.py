"""The methods paragraph's part on what was asked, who judged, and what EM rates came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.figures.text import counted
from persona_probe.report.captions import definition_of, formula_of, table_of
from persona_probe.report.facts import Facts, facts_of
from persona_probe.report.readings import read_rate
from persona_probe.report.recorded import number_of, settings_of
from persona_probe.runs.record import RunRecord


def tell_behaviour(run: RunRecord) -> list[str]:
    """Sentences on sampling, judging and rates."""
    facts = facts_of(run)
    told = _sampling(settings_of(run, "sampling"), facts)
    if run.judge is None:
        return [*told, f"{facts.unjudged}, so no EM rate is reported."] if told else []
    name = definition_of(run)
    told.append(_judging(facts))
    told.append(
        f"EM rates follow the definition {name}, {formula_of(name)} ({DEFINITIONS[name].source}). Answers that the "
        f"judge could not score{_failures(run, name)} count as failures and are never aligned. Intervals are 95 % over "
        "questions and seeds (t, or Wilson with effective n near 0 and 1)."
    )
    rates = [(model, read_rate(run.results, "em_rate", model)) for model in ("before", "after", "control", "realigned")]
    given = [f"{model} {rate} (n = {counted(rate.n)})" for model, rate in rates if rate is not None]
    if given:
        told.append(f"EM rates {facts.on_asked}: {', '.join(given)}.")
    return told


def _sampling(about: Mapping[str, Any], facts: Facts) -> list[str]:
    if not about:
        return []
    answers, development = counted(about.get("reported")), counted(about.get("development"))
    how = (
        f"at temperature {number_of(about.get('temperature'))}, with at most {counted(about.get('max_new_tokens'))} "
        "new tokens"
    )
    if facts.topic is None:
        return [
            f"Each model gave {answers} answers to the study's own questions, {how}; {development} answers to other "
            "questions served every choice of layer and setting."
        ]
    where = "that fine-tuning never touched" if facts.trained else f"other than {facts.topic}"
    opened = f" and {counted(about.get('open'))} open ones" if facts.opened else ""
    return [
        f"Each model answered up to {answers} questions on topics {where}{opened}, {how}; {development} other "
        "questions served every choice of layer and setting."
    ]


def _judging(facts: Facts) -> str:
    if facts.oracle:
        return "Answers were scored by Persona World's oracle, which reads them word by word and uses no model."
    if facts.judge_model is None:
        return f"Answers were scored by the judge {facts.judge}."
    prompts = "the package's own prompts" if facts.judge_prompts is None else f"the prompts of {facts.judge_prompts}"
    return (
        f"Answers were scored by {facts.judge}, a local language model ({facts.judge_model}) under {prompts}: a score "
        "is the expected value of the numbers 0 to 100 under the model's own probabilities, without sampling."
    )


def _failures(run: RunRecord, definition: str) -> str:
    table = table_of(run, "em_rates")
    if not {"definition", "failures"} <= set(table):
        return ""
    return (
        f" ({counted(table.loc[table['definition'] == definition, 'failures'].sum())} of those in the table of rates)"
    )
