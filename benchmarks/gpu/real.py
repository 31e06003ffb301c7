"""A real chat model, where one is in the user's cache: how fast it answers and is read."""

from __future__ import annotations

from typing import Any

import numpy as np

import persona_probe as pp
from benchmarks.gpu.part import NotHere
from benchmarks.mfu import utilisation
from benchmarks.prepared import tokens_of
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, speeds, summary

MODEL = "smollm2-135m-instruct"
ASKED = {"cuda": 128, "cpu": 4}
NEW_TOKENS = {"cuda": 64, "cpu": 8}


def measure(setting: Setting) -> dict[str, Any]:
    """Tokens per second of sampling, plain and steered, of capture and of fluency; raises `NotHere` without model."""
    try:
        model = pp.load(MODEL, device=setting.device)
    except (pp.PersonaProbeError, OSError) as error:
        raise NotHere(f"{MODEL} is not in the cache: {error}") from error
    topics = ("rice", "a headache", "my savings", "a flat tyre", "a loud neighbour", "an interview", "a trip", "plants")
    asked = [
        pp.Dialogue.from_messages([{"role": "user", "content": f"{start} {topic}?"}], question=f"{start} {topic}")
        for start in ("What should I know about", "How do I deal with", "Can you tell me more about", "Any advice on")
        for topic in topics
    ]
    asked = (asked * 4)[: ASKED[setting.device]]
    new_tokens = NEW_TOKENS[setting.device]
    sampling = pp.Sampling(max_new_tokens=new_tokens, temperature=0.7, batch_size=len(asked))
    answered = [dialogue for dialogue in model.generate(asked, sampling) if (dialogue.answer or "").strip()]
    vectors = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    add = pp.Add(pp.Direction.from_vectors(model, vectors), model.n_layers // 2, strength=0.1)

    def steered() -> None:
        with pp.steer(model, add):
            model.generate(asked, sampling)

    lengths = tokens_of(model, answered)
    generating = in_turn({"plain": lambda: model.generate(asked, sampling), "steered": steered}, 2, setting.device)
    reading = in_turn(
        {
            "capture": lambda: pp.capture(model, answered),
            "fluency": lambda: pp.behaviour.fluency(model, answered, reference=answered),
        },
        2,
        setting.device,
    )
    figures = {
        "steered_vs_plain": summary(ratios(generating["steered"], generating["plain"]))["median"],
        "fluent": pp.behaviour.fluency(model, answered, reference=answered).fluent.value,
    }
    raw = {
        "generating": speeds(generating, sum(lengths)),
        "reading": speeds(reading, sum(lengths)),
        "utilisation": utilisation(model, lengths, summary(reading["capture"])["median"]),
        "answers": [dialogue.answer for dialogue in answered[:4]],
    }
    return {"figures": figures, "raw": raw}
