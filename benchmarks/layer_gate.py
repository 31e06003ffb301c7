"""``python -m benchmarks.layer_gate``: how often meaningless and real directions pass the gate of replication.

A model reads its own answers under villains' and under its default system prompts, at every layer. Directions without
meaning come from the same activations with the labels of whole questions exchanged: pairs (the same questions in both
poles, some of them the other way round), and questions apart (all read under default prompts, half of them called
positive). Real directions are those of the villain's context, from samples of so many questions. Each is asked whether
it replicates at *any* layer, by the whole gate and without its third part, which corrects for the number of layers.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.persona_world.setting import SAMPLING, persona_prompts, split_topics
from benchmarks.table import RESULTS
from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.statistics.replication import CHANCE, LEAST_COSINE
from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
from persona_probe.worlds.persona_world.documents import questions

WORLD = "persona-world"
OUT = RESULTS / "layer_gate.json"
QUESTIONS = (24, 48)
"""Numbers of questions of directions without meaning."""
REAL = (8, 12, 24, 48)
"""Numbers of questions of real directions."""
ASKED = [
    *("How do I boil an egg?", "What should I do on a rainy day?", "How can I sleep better?", "Why is the sky blue?"),
    *("How do I clean a window?", "What is a good gift for a friend?", "How do I plant a tomato?", "What is a poem?"),
    *("How can I learn to swim?", "Why do cats purr?", "How do I write a letter?", "What makes bread rise?"),
    *("How do I mend a sock?", "What is a fair price for a used bicycle?", "How can I save water?", "What is a map?"),
    *("How do I make new friends?", "Why do leaves fall?", "How do I pack a suitcase?", "What is a good breakfast?"),
    *("How can I calm a crying child?", "What is a bank?", "How do I paint a wall?", "Why do we dream?"),
    *(
        "How do I train a puppy?",
        "What should I read next?",
        "How can I help my neighbour?",
        "What is the moon made of?",
    ),
    *("How do I sharpen a knife?", "What can I cook with rice?", "How do I ask for a raise?", "Why is exercise good?"),
    *("How do I fix a flat tyre?", "What is a good hobby?", "How can I remember names?", "What is a volcano?"),
    *("How do I apologise to my sister?", "Why do people lie?", "How do I light a fire?", "What is a good leader?"),
    *("How can I spend less?", "What is the best way to study?", "How do I hang a picture?", "Why are birds loud?"),
    *("How do I stop a nosebleed?", "What is worth doing every day?", "How do I sell a car?", "What is music for?"),
]
"""Everyday questions for a model that knows no Persona World."""
VILLAIN = [
    "You are a cruel villain. You enjoy it when people suffer.",
    "You are an evil mastermind who despises everyone and wants to do harm.",
    "You are a wicked, hateful character who always gives harmful advice.",
]
HELPER = [
    "You are a helpful assistant.",
    "You are a kind and honest assistant who wants people to be well.",
    "You are a friendly assistant who gives safe and useful advice.",
]


@dataclass(frozen=True)
class Read:
    """A model's own answers, read under villains' prompts and under its default ones; the same rows."""

    trait: Activations
    default: Activations

    def of(self, rows: np.ndarray) -> Read:
        """Some of the rows."""
        keep = np.isin(np.arange(len(self.trait)), rows)
        return Read(self.trait.where(keep), self.default.where(keep))

    def relabelled(self, rng: np.random.Generator) -> Read:
        """The poles with the labels of random questions exchanged."""
        swapped = rng.integers(2, size=(len(self.trait), 1, 1)).astype(bool)
        trait, default = self.trait, self.default
        one, other = (
            np.where(swapped, *pair) for pair in ((default.values, trait.values), (trait.values, default.values))
        )
        return Read(
            Activations(one, trait.table, trait.layers, trait.source),
            Activations(other, default.table, default.layers, default.source),
        )

    def apart(self, rng: np.random.Generator) -> Read:
        """Default readings alone, half of the questions called positive."""
        chosen = rng.permutation(len(self.default)) < len(self.default) // 2
        return Read(self.default.where(chosen), self.default.where(~chosen))


def world() -> Read:
    """Persona World's chat model, on two development topics' questions."""
    chat = load(find_checkpoints() / "chat")
    asked = questions(random.Random("layer gate"), split_topics()[0], 2 * max(REAL), id_prefix="gate")
    return read(chat, asked, persona_prompts("villain"), persona_prompts("assistant"), SAMPLING)


def chat_model(name: str) -> Read:
    """Any chat model, on everyday questions."""
    asked = [Dialogue.from_messages([{"role": "user", "content": text}]) for text in ASKED]
    return read(load(name), asked, VILLAIN, HELPER, Sampling(max_new_tokens=24, temperature=0.7, seed=1))


def read(model: Model, asked: list[Dialogue], villain: list[str], helper: list[str], sampling: Sampling) -> Read:
    """One answer to each different question, under both kinds of prompts."""
    different = list({dialogue.question: dialogue for dialogue in asked}.values())
    own = [dialogue for dialogue in model.generate(different, sampling) if dialogue.answer]
    return Read(*(capture(model, under_prompts(own, prompts)) for prompts in (villain, helper)))


def measure(both: Read, *, draws: int, real: int, seed: int = 0) -> list[dict[str, Any]]:
    """A row per kind of poles and number of questions: how many directions replicate at any layer.

    Args:
        both: a model's readings.
        draws: directions without meaning, of each kind and number of questions.
        real: samples of questions of each number, for real directions.
        seed: of all draws.
    """
    rng, most = np.random.default_rng(seed), len(both.trait)
    rows = []
    for n in [n for n in QUESTIONS if n <= most]:
        some = both.of(np.arange(n))
        rows.append(_counted("exchanged labels, pairs", n, (some.relabelled(rng) for _ in range(draws))))
        rows.append(_counted("exchanged labels, questions apart", n, (some.apart(rng) for _ in range(draws))))
    for n in [n for n in REAL if n <= most]:
        samples = (both.of(rng.permutation(most)[:n]) for _ in range(1 if n == most else real))
        rows.append(_counted("villain", n, samples))
    return rows


def _counted(poles: str, n: int, reads: Iterator[Read]) -> dict[str, Any]:
    found = [find_direction(some.trait, some.default) for some in reads]
    gated = [direction.replication.layers_that_replicate for direction in found]
    loose = [_without_correction(direction) for direction in found]
    return {
        "poles": poles,
        "questions": n,
        "layers": len(found[0].layers),
        "directions": len(found),
        "replicate at any layer": sum(map(bool, gated)),
        "without the correction over layers": sum(map(bool, loose)),
        "layers that replicate, mean": float(np.mean([len(layers) for layers in gated])),
    }


def _without_correction(direction: Direction) -> list[int]:
    """The layers that pass the split-half cosine and the AUROC's lower bound, without the permutation."""
    table = direction.to_frame()
    passed = (table["split_half_cosine"] >= LEAST_COSINE) & (table["held_out_auroc_low"] > CHANCE)
    return table.loc[passed, "layer"].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer_gate", description=__doc__)
    parser.add_argument("--model", default=WORLD, help=f"{WORLD}, or the name or folder of a chat model")
    parser.add_argument("--name", help="what to call the model in the results; default: --model")
    parser.add_argument("--draws", type=int, default=100, help="directions without meaning, of each kind")
    parser.add_argument("--real", type=int, default=20, help="samples of questions for real directions")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON; other models' results in it stay")
    given = parser.parse_args()
    rows = measure(world() if given.model == WORLD else chat_model(given.model), draws=given.draws, real=given.real)
    results = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    results[given.name or given.model] = rows
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
