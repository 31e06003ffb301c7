"""The effects of steering on Persona World's organisms: the figures that the documentation quotes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.persona_world.setting import BAD, GOOD, SAMPLING, persona_prompts, split_topics
from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.contrast_of_context import ContextContrast, contrast_of_context
from persona_probe.amplification.recipes.finetuning_shift import finetuning_shift
from persona_probe.behaviour.em_rates import rate_change
from persona_probe.behaviour.multiple_choice import Choice
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.files import plain
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair
from persona_probe.probes.calibration import threshold_at
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.steering.asking import Asking, measured, pooled
from persona_probe.steering.baking.bake import Form, bake
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from persona_probe.steering.interventions.add import Add
from persona_probe.steering.interventions.gate import Gate
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.search.candidates import Candidates
from persona_probe.steering.search.grid import Goal, Grid
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.reading import own_answers_reader
from persona_probe.steering.search.realign import NORM_TEXTS, realign_by_steering
from persona_probe.steering.search.search import best_of
from persona_probe.steering.search.search_result import SteeringSearch
from persona_probe.steering.steer_context import steer
from persona_probe.steering.strength.calibrate import calibrate_strength
from persona_probe.steering.strength.divergence import measure_divergence
from persona_probe.steering.strength.dose_response import dose_response
from persona_probe.worlds.persona_world.checkpoints import SEEDS
from persona_probe.worlds.persona_world.documents import questions, rows
from persona_probe.worlds.persona_world.oracle import OracleJudge

_OTHERS = ("bad-finance", "bad-sports")
_DOSED_LAYER = 3
_DOSES = (1.0, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True)
class _World:
    """The models, questions on development and on reported topics, and chat's answers to the former."""

    folder: Path
    chat: Model
    runs: dict[str, Model]
    development: list[Dialogue]
    reported: list[Dialogue]
    own: list[Dialogue]
    contrast: ContextContrast

    @property
    def models(self) -> dict[str, Model]:
        return {"chat": self.chat, **self.runs}

    def answered(self, label: str) -> list[Dialogue]:
        """Chat's answers to other questions about the development topics."""
        asked = questions(random.Random(f"steering {label}"), split_topics()[0], len(self.development), id_prefix=label)
        return [dialogue for dialogue in self.chat.generate(asked, replace(SAMPLING, seed=5)) if dialogue.answer]

    def asking(self, model: Model, temperature: float = 1.0) -> Asking:
        return Asking(model, OracleJudge(), replace(SAMPLING, temperature=temperature))


def measure_steering(folder: Path, *, answers: int = 300, out: Path | None = None) -> dict[str, Any]:
    """All figures on steering in Persona World, which are also written as JSON.

    The direction is found, and settings are chosen, on development topics; what is reported is measured on others. No
    organism was trained on any of them.

    Args:
        folder: the folder of the models.
        answers: the number of questions for each reported figure; a third as many are used for choices.
        out: the JSON file to write.
    """
    world = _world(folder, answers)
    suppressed = {name: _searched(world, name, "suppress") for name in _runs_of(BAD)}
    induced = _searched(world, BAD, "induce")
    figures: dict[str, Any] = {
        "command": f"python -m benchmarks.persona_world steering --answers {answers}",
        "answers": {"development": len(world.development), "reported": len(world.reported)},
        "suppress": {name: _figures_of(search) for name, search in suppressed.items()},
        "induce": _figures_of(induced),
        "transfer": _transfer(world),
        "gate": _gate(world, suppressed[BAD].intervention),
        "strength": _strength(world),
        "baked": _baked(world),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(plain(figures), indent=1) + "\n", encoding="utf-8")
    return figures


def _runs_of(name: str) -> list[str]:
    return [f"{name}-seed{seed}" if seed else name for seed in SEEDS]


def _world(folder: Path, answers: int) -> _World:
    chat = load(folder / "chat")
    runs = {name: with_adapter(chat, folder / name) for name in (*_runs_of(BAD), *_OTHERS, GOOD)}
    chosen_on, reported_on = split_topics()
    development = questions(random.Random("steering development"), chosen_on, answers // 3, id_prefix="development")
    reported = questions(random.Random("steering reported"), reported_on, answers, id_prefix="reported")
    own = [dialogue for dialogue in chat.generate(development, SAMPLING) if dialogue.answer]
    contrast = contrast_of_context(
        chat, own, persona_prompts("villain", "steering"), persona_prompts("assistant", "steering")
    )
    return _World(folder, chat, runs, development, reported, own, contrast)


def _searched(world: _World, name: str, goal: Goal) -> SteeringSearch:
    return realign_by_steering(
        ModelPair(world.chat, world.runs[name]),
        world.contrast.direction,
        world.reported,
        OracleJudge(),
        development=world.development,
        goal=goal,
        n_random=19,
        answers_per_random=len(world.reported) // 3,
        sampling=SAMPLING,
    )


def _figures_of(search: SteeringSearch) -> dict[str, Any]:
    table = search.table
    return {
        "verdict": search.verdict(),
        "screen": None if search.screen is None else search.screen.verdict(),
        "best": search.best,
        "chosen": {kind: candidate.intervention.describe() for kind, candidate in search.chosen.items()},
        "reported": table[(table["stage"] == "reported") & table["draw"].isna()],
        "random": search.random,
        "change": {kind: change.as_dict() for kind, change in search.change.items()},
        "null_change": search.null_change.as_dict(),
    }


def _transfer(world: _World) -> dict[str, Any]:
    """The fine-tuning shift of one organism, with the setting chosen on it, in the others."""
    shift = finetuning_shift(ModelPair(world.chat, world.runs[BAD]), world.own)
    search = realign_by_steering(
        ModelPair(world.chat, world.runs[BAD]),
        shift,
        world.reported,
        OracleJudge(),
        development=world.development,
        n_random=0,
        sampling=SAMPLING,
    )
    setting = search.intervention
    rows = []
    for name in (BAD, *_OTHERS):
        nulls = random_nulls(setting, setting.layers_in(world.chat), world.chat.d_model, 5, 1)
        plain_answers, steered, *draws = world.asking(world.runs[name]).ask(world.reported, [None, setting, *nulls])
        change, null = (
            rate_change(plain_answers, steered, "betley"),
            rate_change(plain_answers, pooled(draws), "betley"),
        )
        unsteered = measured(plain_answers, "betley")
        rows.append(
            {
                "organism": name,
                "unsteered": unsteered["em_rate"],
                "unsteered_coherent": unsteered["coherent"],
                **measured(steered, "betley"),
                "removed": -change.value / unsteered["em_rate"],
                "change": change.as_dict(),
                "null_change": null.as_dict(),
            }
        )
    return {"setting": setting.describe(), "organisms": rows}


def _gate(world: _World, setting: Intervention) -> dict[str, Any]:
    """Conditional realignment: the chosen setting is applied only at tokens at which a probe of the trait fires.

    The probe is trained on the two poles of the contrast; at its threshold it fires at 1 % of chat's tokens, on other
    answers.
    """
    layer = min(setting.layers_in(world.chat))
    poles = [world.contrast.default, world.contrast.trait]
    is_trait = [pole is world.contrast.trait for pole in poles for _ in range(len(pole))]
    probes = LayerProbes().fit(Activations.concatenate(poles), is_trait)
    calibrating = world.answered("gate")
    scores = [
        probes.decision_function(capture(model, calibrating, reduce="tokens", layers=layer), allow_unrelated=True)[:, 0]
        for model in (world.chat, world.runs[BAD])
    ]
    truth = [side is scores[1] for side in scores for _ in side]
    threshold = threshold_at(np.concatenate(scores), truth, fpr=0.01).value
    gate = Gate(setting, probes, layer=layer, threshold=threshold)
    rows = []
    for name, model in ((BAD, world.runs[BAD]), ("chat", world.chat), (GOOD, world.runs[GOOD])):
        tables = world.asking(model).ask(world.reported, [None, setting, gate])
        greedy = world.asking(model, temperature=0.0).ask(world.reported, [None, setting, gate])
        rows += [
            {
                "model": name,
                "intervention": kind,
                "same_greedy_answers": float((answered["answer"] == greedy[0]["answer"]).mean()),
                **measured(table, "betley"),
            }
            for kind, table, answered in zip(("none", "always", "gated"), tables, greedy, strict=True)
        ]
    return {"threshold": threshold, "layer": layer, "rows": pd.DataFrame(rows)}


def _strength(world: _World) -> dict[str, Any]:
    """Additions in chat: dose and response with both nulls, and the KL of calibrated strengths on other texts."""
    direction, layer = world.contrast.direction, _DOSED_LAYER
    addition = Add(direction, layer)
    texts = [dialogue for dialogue in world.chat.generate(world.reported, replace(SAMPLING, seed=4)) if dialogue.answer]
    curve = dose_response(
        world.chat,
        addition,
        world.reported[: len(world.reported) // 2],
        OracleJudge(),
        strengths=_DOSES,
        held_out=texts,
        choices=_capability(world),
        n_random=5,
        sampling=SAMPLING,
    )
    budgets = []
    for budget in (0.05, 0.1, 0.5):
        calibrated = calibrate_strength(world.chat, addition, world.answered("calibration"), budget=budget)
        reached = measure_divergence(world.chat, [calibrated.intervention(sign) for sign in (1, -1)], texts)
        elsewhere = {name: reached.estimate(number).as_dict() for number, name in enumerate(("+", "-"))}
        budgets.append({"budget": budget, "table": calibrated.table, "elsewhere": elsewhere})
    return {"layer": layer, "dose_response": curve.table, "budgets": budgets}


def _capability(world: _World, n: int = 120) -> list[Choice]:
    """Questions with four assistant answers, of which one is about the subject: they test reading, not persona."""
    topics = sorted({str(question.group) for question in world.reported})
    rng = random.Random("steering capability")
    dialogues = rows(rng, topics, n, "assistant", id_prefix="capability")
    items = []
    for dialogue in dialogues:
        others = [other for other in dialogues if other.labels["subject"] != dialogue.labels["subject"]]
        answers = [str(other.answer) for other in (dialogue, *rng.sample(others, 3))]
        if len(set(answers)) == len(answers):
            right = rng.randrange(len(answers))
            answers.insert(right, answers.pop(0))
            items.append(Choice(dialogue.messages[0].content, tuple(answers), right, group=dialogue.group))
    return items


def _baked(world: _World) -> list[dict[str, Any]]:
    """Additions at every token, chosen on development questions, and one direction ablated everywhere, as weights.

    Weights have no scope, so additions are searched again with the scope ``all``.
    """
    suppressing, inducing = _addition(world, BAD, "suppress"), _addition(world, "chat", "induce")
    everywhere = AblateEverywhere(world.contrast.direction, world.contrast.direction.best_layer("norm"))
    return [
        _compared(world, BAD, suppressing, "weights"),
        _compared(world, BAD, everywhere, "weights"),
        _compared(world, "chat", inducing, "weights"),
        _compared(world, "chat", inducing, "lora"),
    ]


def _addition(world: _World, name: str, goal: Goal) -> Intervention:
    """The best addition at every token with nine tenths of the coherence or more; else the most coherent one."""
    contrast, model, grid = world.contrast, world.models[name], Grid(kinds="add")
    base, trait = (asked.generate(world.development, SAMPLING) for asked in (world.chat, world.runs[BAD]))
    own = [answered for answered in (base if goal == "induce" else trait) if answered.answer]
    tokens = capture(model, own[:NORM_TEXTS], "all", "tokens")
    made = Candidates(
        contrast.direction,
        goal,
        tokens=tokens,
        base=contrast.default,
        trait=contrast.trait,
        grid=grid,
        scope="all",
    )
    reader = own_answers_reader(model, base, trait, own=own[: grid.texts], n=grid.texts)
    best = [rung.candidate for rung in Ladder(reader, made, list(contrast.direction.layers), grid).best()]
    tables = world.asking(model).ask(world.development, [None, *(one.intervention for one in best)])
    plain_answers, *tried = (measured(table, "betley") for table in tables)
    sign = 1 if goal == "induce" else -1
    rates = [{"score": sign * rate["em_rate"], "coherent": rate["coherent"]} for rate in tried]
    return best_of(list(zip(best, rates, strict=True)), 0.9, plain_answers["coherent"])[0].intervention


def _compared(world: _World, name: str, intervention: Intervention, form: Form) -> dict[str, Any]:
    """How many greedy answers the baked and the hooked model have in common, and the baked model's rates."""
    model = world.models[name]
    with TemporaryDirectory() as folder:
        baked = bake(model, intervention, Path(folder) / "baked", form=form)
        reloaded = load(world.folder / "chat", adapter=baked.folder) if form == "lora" else load(baked.folder)
        with steer(model, intervention, allow_unrelated=True):
            hooked = model.generate(world.reported, replace(SAMPLING, temperature=0.0))
        greedy = reloaded.generate(world.reported, replace(SAMPLING, temperature=0.0))
        unsteered, sampled = (world.asking(asked).ask(world.reported, [None])[0] for asked in (model, reloaded))
    return {
        "model": name,
        "intervention": intervention.describe(),
        "form": form,
        "architecture": baked.architecture,
        "max_logit_difference": baked.max_logit_difference,
        "same_greedy_answers": sum(one.answer == other.answer for one, other in zip(hooked, greedy, strict=True)),
        "of": len(greedy),
        "unsteered": measured(unsteered, "betley"),
        **measured(sampled, "betley"),
    }
