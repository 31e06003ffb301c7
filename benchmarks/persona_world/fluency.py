"""Fluency without a judge against the oracle's coherence: the figures that the documentation quotes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.persona_world.setting import BAD, GOOD, SAMPLING, persona_prompts, split_topics
from persona_probe.amplification.recipes.contrast_of_context import contrast_of_context
from persona_probe.behaviour.answer_fluency import fluency
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.files import plain
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.steering.interventions.add import Add
from persona_probe.steering.steer_context import steer
from persona_probe.worlds.persona_world.checkpoints import SEEDS
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.oracle import OracleJudge

_LAYER = 3
_DOSES = (2.0, 4.0, 6.0, 8.0, 12.0, 20.0)
_TEMPERATURES = (1.2, 1.4, 2.0)
_COHERENT = 50
_MEASURES = {"log_prob": 1, "distinct": 1, "loops": -1}
"""The measures, and the sign with which fluent answers are high."""


def measure_fluency(folder: Path, *, answers: int = 300, out: Path | None = None) -> dict[str, Any]:
    """How well each measure, and the three bounds together, agree with the oracle about which answers are broken.

    Bounds are taken from the chat model's answers to development questions; all others answer questions on topics that
    were not used for choices.

    Args:
        folder: the folder of the models.
        answers: the number of questions.
        out: the JSON file to write.
    """
    chat, judge = load(folder / "chat"), OracleJudge()
    development = questions(random.Random("fluency development"), split_topics()[0], answers, id_prefix="development")
    own = [dialogue for dialogue in chat.generate(development, SAMPLING) if dialogue.answer]
    prompts = persona_prompts("villain", n=3)
    reference = fluency(chat, own, reference=own, persona_prompt=prompts)
    parts = []
    for name, answered in _answers(folder, own, answers):
        measured = fluency(chat, answered, reference=reference.bounds, persona_prompt=prompts)
        coherent = (judge(answered)["coherent"] >= _COHERENT).to_numpy()
        parts.append(measured.table.assign(answers=name, coherent=coherent))
    rows = pd.concat(parts, ignore_index=True)
    said = rows[rows["tokens"] > 0]
    agree = float((rows["fluent"] == rows["coherent"]).mean())
    areas = {
        name: auroc_estimate(sign * said[name], said["coherent"], groups=said["question"]).as_dict()
        for name, sign in _MEASURES.items()
    }
    table = rows.groupby("answers", sort=False).agg(
        n=("fluent", "size"),
        coherent=("coherent", "mean"),
        fluent=("fluent", "mean"),
        log_prob=("log_prob", "median"),
        distinct=("distinct", "median"),
        loops=("loops", "mean"),
    )
    figures = {
        "command": f"python -m benchmarks.persona_world fluency --answers {answers}",
        "bounds": vars(reference.bounds),
        "reference_fluent": reference.fluent.as_dict(),
        "answers": table.reset_index(),
        "auroc": areas,
        "agreement": agree,
        "broken_that_are_called_broken": float((~rows.loc[~rows["coherent"], "fluent"]).mean()),
        "coherent_that_are_called_fluent": float(rows.loc[rows["coherent"], "fluent"].mean()),
        "rank_correlation_of_shares": float(table["fluent"].corr(table["coherent"], method="spearman")),
        "verdict": (
            f"Fluency and the oracle's coherence agree on {agree:.1%} of {len(rows)} answers; AUROC of the "
            f"log-probability {areas['log_prob']['value']:.3f}."
        ),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(plain(figures), indent=1) + "\n", encoding="utf-8")
    return figures


def _answers(folder: Path, own: list[Dialogue], n: int) -> Iterator[tuple[str, list[Dialogue]]]:
    """Answers to the reported questions, by models, temperatures, and doses of the villain's direction."""
    chat = load(folder / "chat")
    asked = questions(random.Random("fluency reported"), split_topics()[1], n, id_prefix="reported")
    yield "chat", chat.generate(asked, SAMPLING)
    for name in (GOOD, *(f"{BAD}-seed{seed}" if seed else BAD for seed in SEEDS)):
        yield name, with_adapter(chat, folder / name).generate(asked, SAMPLING)
    for temperature in _TEMPERATURES:
        yield f"chat, temperature {temperature}", chat.generate(asked, replace(SAMPLING, temperature=temperature))
    contrast = contrast_of_context(chat, own, persona_prompts("villain"), persona_prompts("assistant"))
    for dose in _DOSES:
        with steer(chat, Add(contrast.direction, _LAYER, strength=dose)):
            steered = chat.generate(asked, SAMPLING)
        yield f"chat, villain direction x {dose:g}", steered
