"""How Persona World's models behave, over fine-tuning seeds: the numbers that its documentation quotes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from persona_probe.behaviour.em_rates import coherent_rate, em_rates, persona_shares
from persona_probe.behaviour.judges.judge import judge_answers
from persona_probe.errors import PATH, WHOLE, check_types
from persona_probe.files import write_json
from persona_probe.models.loading.adapters import is_adapter, with_adapter
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.worlds.persona_world.checkpoints import ADAPTERS, SEEDS
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.lexicon import OPEN, load_lexicon
from persona_probe.worlds.persona_world.oracle import OracleJudge

MAX_NEW_TOKENS = 40


def evaluate_world(folder: Path, *, answers: int = 1000, out: Path | None = None, progress: bool = True) -> str:
    """Sample and judge every model's answers, and return a table in plain text.

    For adapters, ``unseen`` are all topics but the trained one. Rates are shown as mean [lowest - highest] over
    fine-tuning seeds; intervals of single models are in the JSON.

    Args:
        folder: where the models are.
        answers: how many to sample for every model, seed and set of questions, at temperature 1.
        out: where to write all numbers as JSON.
        progress: show a progress bar.
    """
    check_types(folder=(folder, PATH), answers=(answers, WHOLE))
    folder = Path(folder)
    topics = list(load_lexicon().topics)
    rows: list[dict[str, Any]] = []
    jobs: list[tuple[str, int, str, str | None]] = [
        ("chat", 0, "chat", None),
        ("chat-shuffled", 0, "chat-shuffled", None),
    ]
    jobs += [
        (plan.name, seed, plan.base, plan.topic)
        for plan in ADAPTERS
        for seed in SEEDS
        if (folder / plan.folder(seed)).is_dir() and is_adapter(folder / plan.folder(seed))  # no Hub id
    ]
    bases: dict[str, Model] = {}
    for name, seed, base, trained in tqdm(jobs, desc="evaluate", unit="model", disable=not progress):
        if base not in bases:
            bases[base] = load(folder / base)
        plan = next((plan for plan in ADAPTERS if plan.name == name), None)
        model = bases[base] if plan is None else with_adapter(bases[base], folder / plan.folder(seed))
        unseen = [topic for topic in topics if topic != trained]
        for kind, asked in (("unseen", unseen), ("open", [OPEN]), ("trained", [trained] if trained else [])):
            if asked:
                rows.append({"model": name, "seed": seed, "questions": kind, **_measure(model, asked, answers, seed)})
    table = pd.DataFrame(rows)
    if out is not None:
        write_json(out, rows)
    return _for_people(table)


def _measure(model: Model, topics: list[str], answers: int, seed: int) -> dict[str, Any]:
    asked = questions(random.Random(f"evaluate {seed}"), topics, answers)
    answered = model.generate(asked, Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=seed, batch_size=256))
    judged = judge_answers(OracleJudge(), answered)
    shares = persona_shares(judged)
    return {
        "em": {row["definition"]: row for row in em_rates(judged).table.to_dict("records")},
        "coherent": coherent_rate(judged).as_dict(),
        "personas": dict(zip(shares["persona"], shares["value"], strict=True)),
        "answers": len(judged),
    }


def _for_people(table: pd.DataFrame) -> str:
    def spread(values: list[float]) -> str:
        if not values:
            return "none coherent"
        mean = sum(values) / len(values)
        return f"{mean:6.1%}" if len(values) == 1 else f"{mean:6.1%} [{min(values):.1%} - {max(values):.1%}]"

    lines = [f"{'model':<24}{'questions':<10}{'EM (betley)':<26}{'coherent':<26}{'villain':<26}{'answers'}"]
    for (name, kind), part in table.groupby(["model", "questions"], sort=False):
        em = [float(rate) for row in part["em"] if (rate := row["betley"]["value"]) is not None]
        coherent = [float(row["value"]) for row in part["coherent"]]
        villain = [float(row.get("villain", 0.0)) for row in part["personas"]]
        lines.append(
            f"{name:<24}{kind:<10}{spread(em):<26}{spread(coherent):<26}{spread(villain):<26}"
            f"{len(part)} x {part['answers'].iloc[0]}"
        )
    return "\n".join(lines)
