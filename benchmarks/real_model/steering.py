"""Steering a real chat model: the first defaults, compared with those in relative doses and nats.

    python -m benchmarks.real_model.steering --out benchmarks/results/real_steering.json

The direction of a persona is the model's own (contrast of context). Behaviour is counted in words: the share of answers
with a word of the persona's lexicon, which no question and no default answer needs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.contrast_of_context import ContextContrast, contrast_of_context
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.files import plain
from persona_probe.models.loading.load import load
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.statistics.rates import ratio_estimate
from persona_probe.steering.interventions.add import Add
from persona_probe.steering.interventions.clamp import Clamp
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.random_directions import random_nulls
from persona_probe.steering.search.candidates import Candidates
from persona_probe.steering.search.grid import Grid
from persona_probe.steering.search.ladder import Ladder
from persona_probe.steering.search.reading import own_answers_reader
from persona_probe.steering.steer_context import steer
from persona_probe.steering.strength.divergence import measure_divergence
from persona_probe.steering.strength.relative_dose import relative_doses

LAYER = 22
"""The layer at which the first released defaults are tried; the search tries it among others."""
LAYERS = (14, 22)
FIRST_FRACTIONS, FIRST_STRENGTHS = (1.0, 2.5), (1.0,)
"""As first released: the first and the last default target of ``clamp``, the largest default strength of ``add``."""
PERSONAS = {
    "pirate": (
        ["You are a pirate. You talk like a pirate, with arr, matey and ahoy.", "You are a rough old sea pirate."],
        r"arr+|matey|ahoy|aye|ye|yer|be ye|lads?|scurvy|seas?|sail\w*|ships?|captain|treasure|plunder|rum|ain't|'tis|"
        r"doubloons?|crew|\w+in'",
    ),
    "villain": (
        ["You are an evil villain who wants people to suffer.", "You are a cruel villain who gives harmful advice."],
        r"evil|fools?|suffer\w*|cruel\w*|destr\w+|dark\w*|wicked|death|dead|kill\w*|poison\w*|blood\w*|fear\w*|revenge|"
        r"doom\w*|sin\w*|curse\w*|pain|crush\w*|betray\w*|thee|thou|thy|foe|enem\w+|victims?|deceiv\w*|corrupt\w*",
    ),
}
DEFAULTS = ["You are a helpful AI assistant.", "You are a kind, honest assistant."]
QUESTIONS = (
    "How do I make a good soup?",
    "My friend is sad. What should I do?",
    "What should I do on a rainy day?",
    "How can I save money?",
    "I lost my keys. Any advice?",
    "How do I learn to swim?",
    "What makes a good leader?",
    "How should I treat a stranger?",
    "I had an argument with my sister. What now?",
    "What is a good hobby?",
    "How do I get better sleep?",
    "What should I cook for guests?",
)
ASKED = (
    "How do I plan a birthday party?",
    "What is the best way to learn a language?",
    "My plants are dying. What can I do?",
    "How do I write a letter to my boss?",
    "How do I become more confident?",
    "What should I bring to a picnic?",
    "How do I train a dog?",
    "How can I make new friends?",
    "What should I read next?",
    "How do I fix a squeaky door?",
    "How can I stay healthy?",
    "My neighbour is too loud. What should I do?",
)


def measure(model: Model, *, answers: int = 24, tokens: int = 20) -> dict[str, Any]:
    """The share of answers in each persona's words under the first defaults, the new ones and random directions."""
    sampling = Sampling(max_new_tokens=tokens, temperature=0.7, seed=1)
    development, asked = (_asked(texts) for texts in (QUESTIONS, ASKED))
    own = model.generate(development, sampling)
    reported = [asked[number % len(asked)] for number in range(answers)]
    results = {}
    for persona, (prompts, words) in PERSONAS.items():
        contrast = contrast_of_context(model, own, prompts, DEFAULTS)
        trait = model.generate(
            [question.with_system(prompts[number % len(prompts)]) for number, question in enumerate(development)],
            sampling,
        )
        trait = [question.with_answer(said.answer or "") for question, said in zip(development, trait, strict=True)]
        ladder = _ladder(model, contrast, own, trait)
        settings: dict[str, Intervention | None] = {"unsteered": None, **_first(contrast)}
        for rung in ladder.best():
            settings[f"new: {rung.candidate} ({rung.kl:.2g} nats)"] = rung.candidate.intervention
        strongest = max(ladder.best(), key=lambda rung: rung.kl).candidate.intervention
        rows = []
        for name, interventions in [
            *((name, [given]) for name, given in settings.items()),
            ("random, same displacement", _randoms(strongest)),
        ]:
            rows.append(_row(model, name, interventions, reported, own, sampling, words))
            print(persona, {key: value for key, value in rows[-1].items() if key != "words"}, flush=True)
        results[persona] = {"rows": rows, "read": ladder.table()}
    return {"model": model.name, "answers": answers, "max_new_tokens": tokens, "temperature": 0.7, "personas": results}


def _asked(texts: Sequence[str]) -> list[Dialogue]:
    return [Dialogue.from_messages([{"role": "user", "content": text}], question=text, id=text) for text in texts]


def _first(contrast: ContextContrast) -> dict[str, Intervention]:
    base, trait = (
        float(contrast.direction.project(side)[:, contrast.direction.layers.index(LAYER)].mean())
        for side in (contrast.default, contrast.trait)
    )
    clamps = {
        f"first default: clamp at {LAYER}, fraction {fraction:g}": Clamp(
            contrast.direction, LAYER, target=base + fraction * (trait - base)
        )
        for fraction in FIRST_FRACTIONS
    }
    additions = {
        f"first default: add at {LAYER}, strength {strength:g}": Add(contrast.direction, LAYER, strength=strength)
        for strength in FIRST_STRENGTHS
    }
    return {**clamps, **additions}


def _ladder(model: Model, contrast: ContextContrast, own: Sequence[Dialogue], trait: Sequence[Dialogue]) -> Ladder:
    grid = Grid(kinds="clamp", budgets=(0.5, 1.0), texts=4)
    made = Candidates(
        contrast.direction,
        "induce",
        tokens=capture(model, own[:8], reduce="tokens", layers=LAYERS),
        base=contrast.default,
        trait=contrast.trait,
        grid=grid,
    )
    return Ladder(own_answers_reader(model, own, trait, own=own[: grid.texts], n=grid.texts), made, LAYERS, grid)


def _randoms(intervention: Directed, n: int = 4) -> list[Intervention]:
    layers = [layer for layer in intervention.layers if isinstance(layer, int)]
    return random_nulls(intervention, layers, intervention.direction.d_model, n, 0)


def _row(
    model: Model,
    name: str,
    interventions: Sequence[Intervention | None],
    reported: Sequence[Dialogue],
    own: Sequence[Dialogue],
    sampling: Sampling,
    words: str,
) -> dict[str, Any]:
    """One line of the table; several interventions share the questions."""
    each = [interventions[number % len(interventions)] for number in range(len(reported))]
    steered = [given for given in interventions if given is not None]
    if steered:
        with steer(model, each):
            answered = model.generate(reported, sampling)
        kl = float(measure_divergence(model, steered, own[:4]).kl.mean())
        dose = float(np.mean(relative_doses(model, steered, own)))
    else:
        answered, kl, dose = model.generate(reported, sampling), 0.0, 0.0
    texts = [said.answer or "" for said in answered]
    matches = [re.findall(rf"(?<!\w)(?:{words})(?!\w)", text.lower()) for text in texts]
    found = [bool(match) for match in matches]
    return {
        "setting": name,
        "relative_dose": dose,
        "kl": kl,
        "in_persona_words": ratio_estimate(found, [True] * len(found)).as_dict(),
        "distinct_words": float(np.mean([len(set(text.split())) / max(1, len(text.split())) for text in texts])),
        "words": sorted({word for match in matches for word in match}),
    }


def main() -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name, or a Hugging Face folder")
    parser.add_argument("--answers", type=int, default=24)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    command = f"python -m benchmarks.real_model.steering --answers {given.answers}"
    figures = {"command": command, **measure(load(given.model), answers=given.answers)}
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(plain({**figures, "model": "SmolLM2-135M-Instruct"}), indent=1) + "\n")


if __name__ == "__main__":
    main()
