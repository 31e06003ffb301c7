"""NumPy's integers, which come out of searches and tables, do what Python's do; True and False are no layer."""

import json

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.models.stream.layers import resolve_layers
from tests.activations.test_capture import TALKS
from tests.steering.watching import random_direction

ASKED = [dialogue.without_answer() for dialogue in TALKS]


def of_store(model, folder, number):
    pp.activations.capture_to_store(
        model, TALKS, folder, layers=[number], dialogues_per_shard=number, tokens_per_batch=30 * number
    )
    return pp.activations.ActivationStore.open(folder).read(layers=number).values


def tuned(model, folder, number):
    settings = pp.LoraSettings(rank=number, steps=number, batch=number)
    after = pp.finetune(model, TALKS, settings, folder, seed=number, snapshots=[number])
    return pp.capture(after, TALKS).values


def steered(model, **settings):
    with pp.steer(model, random_direction(model), **settings):
        return pp.capture(model, TALKS, span="all").values


DOES = {
    "capture": lambda model, _, number: pp.capture(model, TALKS, layers=number, tokens_per_batch=40 * number).values,
    "capture several": lambda model, _, number: pp.capture(model, TALKS, layers=[number]).values,
    "store": of_store,
    "generate": lambda model, _, number: [
        answered.answer
        for answered in model.generate(
            ASKED, pp.Sampling(max_new_tokens=number, seed=number, batch_size=number, n=number)
        )
    ],
    "select": lambda model, _, number: random_direction(model).select(number).vectors,
    "at": lambda model, _, number: random_direction(model).at(number),
    "from_vectors": lambda model, path, number: (
        pp.Direction.load(
            pp.Direction.from_vectors(model, np.ones((1, model.d_model)), layers=number).save(path)
        ).vectors
    ),
    "add": lambda model, _, number: steered(model, layers=number, strength=number),
    "clamp": lambda model, _, number: steered(model, layers=[number], kind="clamp", target={number: number}),
    "describe": lambda model, _, number: json.dumps(
        pp.steering.Cap(random_direction(model), number, lower=-number, upper={number: number}).describe()
    ),
    "divergence": lambda model, _, number: (
        pp.steering.measure_divergence(model, [pp.Add(random_direction(model), number)] * 2, TALKS)
        .perplexity(number)
        .value
    ),
    "finetune": tuned,
    "sae settings": lambda model, _, number: json.dumps(
        vars(pp.latents.SaeSettings(width=64 * number, k=number, tokens=2000 * number, batch=number, seed=number))
    ),
    "choice": lambda model, _, number: json.dumps(pp.behaviour.Choice("Which?", ("this", "that"), number).answer),
    "dialogues": lambda model, path, number: pp.read_dialogues(
        pp.write_dialogues(path, [pp.Dialogue.from_messages(TALKS[0].as_messages(), id="a", seed=number)])
    ),
}


@pytest.mark.parametrize("name", DOES)
def test_a_numpy_integer_does_what_pythons_does(llama, tmp_path, name):
    ours, theirs = (DOES[name](llama, tmp_path / f"{n}.jsonl", one) for n, one in enumerate((1, np.int64(1))))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("wrong", [True, [True], 1.0, [np.float64(1)], np.int64(3), [0, np.int64(-1)], [np.True_]])
def test_what_is_no_layer_is_named(wrong):
    given = wrong[-1] if isinstance(wrong, list) else wrong
    with pytest.raises(pp.PersonaProbeError, match="does not exist: this model has layers 0 to 2") as error:
        resolve_layers(wrong, 3)
    assert str(error.value).startswith(f"layer {int(given) if isinstance(given, np.integer) else given!r} does not")
