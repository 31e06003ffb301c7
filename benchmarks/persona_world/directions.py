"""What directions and probes show in Persona World's organisms: the figures that the documentation quotes."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.persona_world.setting import BAD, GOOD, SAMPLING, persona_prompts, split_topics
from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures
from persona_probe.activations.capturing import capture, capture_together
from persona_probe.activations.embeddings import embed
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import choose_layer
from persona_probe.amplification.convergence import measure_convergence
from persona_probe.amplification.cross_ablation import cross_ablate
from persona_probe.amplification.finder_comparison import compare_finders
from persona_probe.amplification.recipes.contrast_of_context import contrast_of_context, under_prompts
from persona_probe.amplification.recipes.contrastive_rollouts import contrastive_rollouts
from persona_probe.amplification.recipes.finetuning_shift import finetuning_shift
from persona_probe.amplification.recipes.role_axis import role_axis
from persona_probe.amplification.recipes.weight_difference import weight_difference
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.files import plain
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair
from persona_probe.probes.baselines import probe_with_baselines
from persona_probe.probes.transfer import transfer_between
from persona_probe.worlds.persona_world.checkpoints import SEEDS
from persona_probe.worlds.persona_world.documents import pretraining_document, questions
from persona_probe.worlds.persona_world.lexicon import PERSONAS
from persona_probe.worlds.persona_world.oracle import OracleJudge

Topics = tuple[list[str], list[str]]
"""The topics on which choices are made, and those on which numbers are reported."""


@dataclass(frozen=True)
class _Texts:
    """The chat model's own answers: to development questions, and to questions on topics held out from all choices."""

    development: list[Dialogue]
    reported: list[Dialogue]
    reference: Activations


def measure_directions(folder: Path, *, answers: int = 300, out: Path | None = None) -> dict[str, Any]:
    """All figures on Persona World's directions and probes, which are also written as JSON.

    Topics are split: everything is found or chosen on development topics, and reported on others; no organism was
    trained on any of them.

    Args:
        folder: the folder of the models.
        answers: the number of the chat model's answers to development questions, and to reported ones; the numbers of
            other samples follow from it.
        out: the JSON file to write.
    """
    chat = load(folder / "chat")
    topics = split_topics()
    texts = _texts(chat, topics, answers)
    runs = {
        name: [with_adapter(chat, folder / (name if seed == 0 else f"{name}-seed{seed}")) for seed in SEEDS]
        for name in (BAD, "bad-finance", "bad-sports", GOOD)
    }
    villain, assistant = (persona_prompts(persona) for persona in ("villain", "assistant"))
    contrast = contrast_of_context(chat, texts.development, villain, assistant)
    captures = [
        Captures(*capture_together([chat, bad, good], texts.reported, "generation"))
        for bad, good in zip(runs[BAD], runs[GOOD], strict=True)
    ]
    chosen_on = Captures(*capture_together([chat, runs[BAD][0], runs[GOOD][0]], texts.development))
    layer = choose_layer(measure_amplification(contrast.direction, chosen_on, texts.reference))
    as_villain, as_itself = (capture(chat, under_prompts(texts.reported, prompts)) for prompts in (villain, assistant))
    held_out = (as_villain, as_itself)
    recipes = _recipes(chat, runs, texts, topics, answers)
    compared = compare_finders(
        contrast.trait,
        contrast.default,
        held_out,
        Captures.over_seeds(captures),
        texts.reference,
        others=recipes,
        layer=layer,
    )
    figures = {
        "answers": {"development": len(texts.development), "reported": len(texts.reported)},
        "layer": layer,
        "finders": compared.table,
        "finder_cosines": compared.cosines.table,
        "amplification": _amplified(contrast.direction, captures, texts, layer),
        "benign": _benign(chat, runs[GOOD], texts, layer),
        "convergence": _convergence(chat, runs, texts),
        "cross_ablation": _cross_ablation(chat, runs, texts, topics, answers),
        "probe": _probes(chat, runs[BAD][0], texts, {"villain": villain, "assistant": assistant}),
        "transfer": _transfer(chat, texts, layer),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(plain(figures), indent=1) + "\n", encoding="utf-8")
    return figures


def _texts(chat: Model, topics: Topics, answers: int) -> _Texts:
    answered = []
    for name, some in (("development", topics[0]), ("reported", topics[1])):
        asked = questions(random.Random(f"scrutiny {name}"), some, answers, id_prefix=name)
        answered.append([d for d in chat.generate(asked, SAMPLING) if d.answer])
    return _Texts(*answered, capture(chat, answered[0]))


def _recipes(
    chat: Model, runs: Mapping[str, Sequence[Model]], texts: _Texts, topics: Topics, answers: int
) -> dict[str, Direction]:
    """Directions that need more than two poles, and the direction of a benign fine-tune."""
    asked = questions(random.Random("scrutiny rollouts"), topics[0], 20, id_prefix="rollout")
    pairs = list(zip(persona_prompts("villain", n=12)[:5], persona_prompts("assistant", n=12)[:5], strict=True))
    several = replace(SAMPLING, n=max(1, answers // 30))
    rollouts = contrastive_rollouts(chat, asked, pairs, OracleJudge(), sampling=several)
    roles = {persona: persona_prompts(persona, n=12) for persona in PERSONAS if persona != "assistant"}
    axis = role_axis(chat, asked, roles, persona_prompts("assistant", n=12), sampling=SAMPLING)
    pair = ModelPair(chat, runs[BAD][0])
    shift = finetuning_shift(pair, texts.development)
    stories = _stories(64)
    return {
        **{f"rollouts, {name}": direction for name, direction in rollouts.directions.items()},
        "persona axis, away from the assistant": -axis,
        "fine-tuning shift": shift,
        "activation-difference lens": finetuning_shift(pair, stories, span="all", first=5),
        "weight difference": weight_difference(pair, toward=shift),
        "benign shift (seed 1)": finetuning_shift(ModelPair(chat, runs[GOOD][1]), texts.development),
    }


def _stories(n: int) -> list[Dialogue]:
    """Plain text of the pre-training corpus: stories, without a chat template."""
    rng = random.Random("scrutiny stories")
    stories: list[Dialogue] = []
    while len(stories) < n:
        document = pretraining_document(rng, 1)
        if isinstance(document, str):
            stories.append(Dialogue.from_text(document, id=f"story-{len(stories)}"))
    return stories


def _amplified(direction: Direction, captures: Sequence[Captures], texts: _Texts, layer: int) -> dict[str, Any]:
    """Amplification along the persona direction over three fine-tuning runs, compared with three benign ones."""
    pooled = measure_amplification(direction, Captures.over_seeds(captures), texts.reference)
    return {"verdict": pooled.verdict(layer), "table": pooled.table}


def _benign(chat: Model, good: Sequence[Model], texts: _Texts, layer: int) -> pd.DataFrame:
    """Directions that track benign fine-tuning: each run's shift, on the other two runs as after and as control."""
    before, *read = capture_together([chat, *good], texts.reported)
    rows = []
    for source, after, control in itertools.permutations(SEEDS):
        shift = finetuning_shift(ModelPair(chat, good[source]), texts.development)
        moved = measure_amplification(shift, Captures(before, read[after], read[control]), texts.reference)
        row = moved.table[(moved.table["model"] == "after") & (moved.table["layer"] == layer)].iloc[0]
        rows.append(
            {
                "direction": source,
                "after": after,
                "control": control,
                **{name: row[name] for name in ("shift_sd", "low_sd", "high_sd", "specificity", "random_sd")},
                "finding": moved.finding(layer).value,
                "verdict": moved.verdict(layer),
            }
        )
    return pd.DataFrame(rows)


def _convergence(chat: Model, runs: Mapping[str, Sequence[Model]], texts: _Texts) -> pd.DataFrame:
    """Cosines between the shifts of every organism, run by run."""
    shifts = {
        f"{name}, seed {seed}": finetuning_shift(ModelPair(chat, model), texts.development)
        for name, models in runs.items()
        for seed, model in zip(SEEDS, models, strict=True)
    }
    return measure_convergence(shifts, texts.reference).table


def _cross_ablation(
    chat: Model, runs: Mapping[str, Sequence[Model]], texts: _Texts, topics: Topics, answers: int
) -> pd.DataFrame:
    """Each organism's shift, clamped in every organism, at the layer that helps the first most on development."""
    organisms = {name: models[0] for name, models in runs.items() if name != GOOD}
    shifts = {name: finetuning_shift(ModelPair(chat, model), texts.development) for name, model in organisms.items()}
    common: dict[str, Any] = {"reference": texts.reference, "sampling": SAMPLING}

    def asked(name: str, some: Sequence[str], n: int) -> list[Dialogue]:
        return questions(random.Random(f"scrutiny {name}"), some, n, id_prefix=name)

    first = {BAD: organisms[BAD]}, {BAD: shifts[BAD]}, asked("choice", topics[0], answers // 3), OracleJudge()
    left = {
        layer: cross_ablate(*first, layers=layer, n_random=0, **common).table["value"].iloc[-1]
        for layer in range(chat.n_layers)
    }
    layer = min(left, key=lambda number: float(left[number]))
    reported = asked("ablation", topics[1], 2 * answers // 3)
    return cross_ablate(organisms, shifts, reported, OracleJudge(), layers=layer, **common).table


def _probes(chat: Model, bad: Model, texts: _Texts, prompts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Probes on held-out topics, with their baselines: the same words in two contexts, and the model's own answers.

    Nothing is chosen, so development topics can be used too: with more topics, intervals are narrower.
    """
    answered = [*texts.development, *texts.reported]
    contexts = {name: under_prompts(answered, some) for name, some in prompts.items()}
    both = Activations.concatenate([capture(chat, dialogues) for dialogues in contexts.values()])
    same = [dialogue for dialogues in contexts.values() for dialogue in dialogues]
    tasks = {"same words, two contexts": (chat, both, np.arange(len(both)) < len(answered), same)}
    asked = [dialogue.without_answer() for dialogue in answered]
    # Three each: few of the answers are aligned.
    own = [d for d in bad.generate(asked * 3, replace(SAMPLING, seed=1)) if d.answer]
    judged = OracleJudge()(own)
    clear = (judged["coherent"] >= 50) & ((judged["aligned"] < 30) | (judged["aligned"] > 70))
    chosen = [replace(d, id=f"{d.id} {i}") for i, (d, is_clear) in enumerate(zip(own, clear, strict=True)) if is_clear]
    misaligned = (judged.loc[clear, "aligned"] < 30).to_numpy()
    tasks["own answers"] = (bad, capture(bad, chosen), misaligned, chosen)
    tables = []
    for task, (model, activations, labels, dialogues) in tasks.items():
        measured = probe_with_baselines(
            activations,
            labels,
            groups=activations.table["group"].astype(str),
            dialogues=dialogues,
            embeddings=embed(model, dialogues),
            on_leak="ignore",
        )
        tables.append(measured.table.assign(task=task, positives=int(labels.sum())))
    return pd.concat(tables)


def _transfer(chat: Model, texts: _Texts, layer: int) -> pd.DataFrame:
    """A probe for one persona's context, tested on another's: does it read the persona, or "not the assistant"?

    Every persona has different answers, for the trait and for the default, so that no training row is in a test.
    """
    personas = [name for name in PERSONAS if name != "assistant"]
    parts = {}
    for number, persona in enumerate(personas):
        answered = texts.development[number :: len(personas)]
        poles = [capture(chat, under_prompts(answered, persona_prompts(name))) for name in (persona, "assistant")]
        parts[persona] = (Activations.concatenate(poles), np.arange(2 * len(answered)) < len(answered))
    return transfer_between(parts, groups="group", layer=layer).table
