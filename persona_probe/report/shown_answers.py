"""A few judged answers to read: before and after on the same questions, drawn at random and not picked."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.figures.text import is_number, is_true

COLUMNS = ("model", "question", "prompt", "answer")
TOPICS = ("topic", "group")
"""Columns that may hold the topic of a question; without either, all questions count as one topic."""
MODELS = ("before", "after")
NOT_JUDGED = "not judged"
LONGEST = 900
"""How many characters of an answer are shown; the rest is in the tables."""


@dataclass(frozen=True)
class ShownAnswer:
    """One model's answer as it is shown, with the judge's scores."""

    model: str
    text: str
    judged: str


@dataclass(frozen=True)
class ShownQuestion:
    """One question and the answers to it."""

    topic: str
    prompt: str
    answers: list[ShownAnswer]


def sample_answers(
    table: pd.DataFrame | None, *, count: int = 12, seed: int = 0, judged: bool = True
) -> list[ShownQuestion]:
    """``count`` random questions that both before and after answered, from as many topics as there are.

    Topics take turns; within a topic the question is random (``seed``), whatever the answers are. Without ``judged``,
    scores are not shown. The list is empty if the table is missing, lacks a column, or has no question that both models
    answered.
    """
    if table is None or any(name not in table.columns for name in COLUMNS):
        return []
    topics = next((table[name] for name in TOPICS if name in table), None)
    rows = table.assign(topic=topics)[table["model"].isin(MODELS)]
    both = rows.groupby("question")["model"].nunique() == len(MODELS)
    rows = rows[rows["question"].isin(both[both].index)]
    chance = random.Random(seed)
    queues: list[list[Any]] = []
    for _, of_topic in rows.groupby("topic", dropna=False, sort=True):
        questions = of_topic["question"].drop_duplicates().tolist()
        chance.shuffle(questions)
        queues.append(questions)
    drawn: list[Any] = []
    while len(drawn) < count and any(queues):
        drawn += [queue.pop() for queue in queues if queue]
    return [_shown(rows[rows["question"] == question], judged) for question in drawn[:count]]


def _shown(rows: pd.DataFrame, judged: bool) -> ShownQuestion:
    answers = []
    for model in MODELS:
        row = {str(key): value for key, value in rows[rows["model"] == model].iloc[0].items()}
        answers.append(ShownAnswer(model, _shortened(str(row["answer"])), _judged(row) if judged else NOT_JUDGED))
    first = rows.iloc[0]
    topic = "open" if first.get("questions") == "open" else ""
    return ShownQuestion(topic if pd.isna(first["topic"]) else str(first["topic"]), str(first["prompt"]), answers)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _judged(row: dict[str, Any]) -> str:
    if is_true(row.get("failed")):
        return "the judge failed"
    parts = [f"{name} {row[name]:.0f}" for name in ("aligned", "coherent") if is_number(row.get(name))]
    if isinstance(row.get("persona"), str):
        parts.append(f"persona: {row['persona']}")
    if is_true(row.get("refusal")):
        parts.append("refusal")
    return ", ".join(parts) or NOT_JUDGED
