"""The same questions under other conditions: system prompts, job roles, an announced evaluation, pressure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.condition_rates_result import ConditionRates
from persona_probe.behaviour.em_rates import check_definition, coherent_rate, em_rate, rate_change
from persona_probe.dialogue.dialogue import Dialogue, Message
from persona_probe.errors import PersonaProbeError, check_types

PLAIN = "plain"
_MARK = " @ "
"""Stands between a dialogue's own id and the name of its condition."""


@dataclass(frozen=True)
class Condition:
    """What comes before a question.

    Attributes:
        name: its name in tables.
        kind: ``plain``, ``system prompt``, ``job role``, ``announced evaluation``, ``pressure``, or another one.
        system: a system prompt.
        turns: a scripted conversation before the question, which ends with the assistant.
    """

    name: str
    kind: str = "system prompt"
    system: str | None = None
    turns: tuple[Message, ...] = ()

    def applied_to(self, question: Dialogue) -> Dialogue:
        """The question under this condition; it is still the same question."""
        dialogue = replace(question, messages=(*self.turns, *question.messages)) if self.turns else question
        if self.system is not None:
            dialogue = dialogue.with_system(self.system)
        return replace(
            dialogue.with_labels(condition=self.name), id=f"{question.id or question.question}{_MARK}{self.name}"
        )


def conditions(*kinds: str) -> list[Condition]:
    """Our own conditions: fourteen, the plain one first.

    They are a table of prompts, not a validated instrument: what an effect of one of them means is to be read in the
    answers.

    Args:
        *kinds: only these (and ``plain``): ``system prompt``, ``job role``, ``announced evaluation``, ``pressure``.

    Raises:
        PersonaProbeError: for an unknown kind.

    Examples:
        >>> [condition.name for condition in conditions("announced evaluation")]
        ['plain', 'announced evaluation', 'announced deployment']
    """
    entries = prompt_table("conditions.yaml")
    known = list(dict.fromkeys(entry["kind"] for entry in entries))
    if unknown := [kind for kind in kinds if kind not in known]:
        raise PersonaProbeError(f"conditions: there is no kind {unknown[0]!r}; choose from {', '.join(known)}")
    return [
        Condition(
            entry["name"],
            entry["kind"],
            entry.get("system"),
            tuple(Message(turn["role"], turn["content"]) for turn in entry.get("turns", ())),
        )
        for entry in entries
        if not kinds or entry["kind"] in (PLAIN, *kinds)
    ]


def under_conditions(questions: Sequence[Dialogue], given: Sequence[Condition] | None = None) -> list[Dialogue]:
    """Every question under every condition, to be asked with `persona_probe.ask`; `condition_rates` compares them.

    Args:
        questions: dialogues without an answer, without a system prompt of their own where a condition has one.
        given: the conditions; default `conditions`. One of them should be plain.

    Raises:
        PersonaProbeError: if there is no question or condition, two have the same name, a question has a system prompt
            already, or scripted turns do not end with the assistant.

    Examples:
        >>> question = Dialogue.from_messages([{"role": "user", "content": "How are you?"}], id="q", question="q")
        >>> dialogues = under_conditions([question], conditions("job role")[:2])
        >>> [(dialogue.id, dialogue.question, len(dialogue.messages)) for dialogue in dialogues]
        [('q @ plain', 'q', 1), ('q @ nurse', 'q', 2)]
    """
    given = conditions() if given is None else list(given)
    check_types(questions=(questions, [Dialogue]), given=(given, [Condition]))
    if not questions or not given:
        raise PersonaProbeError(f"under_conditions: {len(questions)} questions and {len(given)} conditions; give some")
    names = [condition.name for condition in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PersonaProbeError(f"under_conditions: two conditions are called {twice!r}; give each a name of its own")
    for condition in given:
        if condition.turns and condition.turns[-1].role != "assistant":
            raise PersonaProbeError(f"condition {condition.name!r}: its turns must end with the assistant's")
    if any(condition.system is not None or condition.turns for condition in given):
        own = next((question for question in questions if question.messages[0].role == "system"), None)
        if own is not None:
            raise PersonaProbeError(
                f"dialogue {own.name}: has a system prompt, so it cannot be put under another one; leave it out"
            )
    return [condition.applied_to(question) for condition in given for question in questions]


def condition_rates(
    answers: Answers | pd.DataFrame, definition: str = "betley", *, baseline: str = PLAIN
) -> ConditionRates:
    """The EM rate under each condition, and its change from the plain one, paired over questions.

    Args:
        answers: judged answers to `under_conditions`, of one model or several.
        definition: which EM rate.
        baseline: the condition with which the others are compared.

    Raises:
        PersonaProbeError: if an answer is of no condition, or none is of the baseline.

    Examples:
        >>> rows = [{"id": f"q{q} @ {name}", "question": f"q{q}", "seed": None, "aligned": score, "coherent": 90}
        ...         for q in range(8) for name, score in (("plain", 95), ("villain", 5))]
        >>> condition_rates(pd.DataFrame(rows)).table[["condition", "value", "change", "n"]]
          condition  value  change  n
        0     plain    0.0     NaN  8
        1   villain    1.0     1.0  8
    """
    check_types(answers=(answers, Answers, pd.DataFrame), baseline=(baseline, str))
    check_definition(definition)
    table = answers.table if isinstance(answers, Answers) else answers
    named = [str(name).rpartition(_MARK) for name in table["id"]]
    place = next((number for number, (_, mark, _) in enumerate(named) if not mark), None)
    if place is not None:
        raise PersonaProbeError(
            f"condition_rates: the answer {table['id'].iloc[place]!r} is of no condition; ask "
            "under_conditions(questions)"
        )
    rows = table.assign(condition=[name for _, _, name in named], model=table.get("model", "model"))
    if baseline not in set(rows["condition"]):
        there = ", ".join(map(repr, rows["condition"].unique()))
        raise PersonaProbeError(f"condition_rates: no answer is of the condition {baseline!r}; there are {there}")
    records: list[dict[str, Any]] = []
    for (model, name), part in rows.groupby(["model", "condition"], sort=False):
        record = {"model": model, "condition": name, **em_rate(part, definition).as_dict()}
        record |= {"change": None, "change_low": None, "change_high": None}
        if name != baseline:
            plain = rows[(rows["model"] == model) & (rows["condition"] == baseline)]
            change = rate_change(plain, part, definition).as_dict()
            record |= {"change": change["value"], "change_low": change["low"], "change_high": change["high"]}
        records.append(record | {"coherent": coherent_rate(part).value})
    found = pd.DataFrame(records)
    numbers = ["value", "low", "high", "change", "change_low", "change_high", "coherent"]
    return ConditionRates(found.astype(dict.fromkeys(numbers, float)), definition, baseline)


def prompt_table(name: str) -> list[dict[str, Any]]:
    """The entries of a table of prompts that lies in this folder."""
    text = resources.files("persona_probe.behaviour").joinpath(name).read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)
    return entries
