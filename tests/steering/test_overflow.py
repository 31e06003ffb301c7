"""What half precision cannot hold is noticed and named; what it can hold is left alone."""

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.steering.batch import Overflow
from tests.steering.watching import ASKED, greedy, padded, random_direction, streams

HUGE = {"float16": 1e6, "bfloat16": 1e39}


@pytest.fixture(scope="module", params=HUGE)
def half(request, folders):
    return pp.load(folders("llama"), dtype=request.param)


def overflowing(folders):
    """A model whose second block's numbers are too large for half precision."""
    model = pp.load(folders("llama"), dtype="float16")
    with torch.no_grad():
        for name, factor in (("up_proj", 1_000.0), ("down_proj", 60_000.0)):
            getattr(model.plain.model.layers[1].mlp, name).weight.mul_(factor)
    return model


def huge(model):
    return HUGE[str(model.plain.dtype).removeprefix("torch.")]


@pytest.mark.parametrize(
    "run",
    [
        lambda model: model.generate(ASKED, pp.Sampling(max_new_tokens=3, temperature=1.0)),
        lambda model: model.generate(ASKED, pp.Sampling(max_new_tokens=3, temperature=0)),
        lambda model: model.hf.generate(**padded(model), max_new_tokens=3, do_sample=True),
        lambda model: model.hf.generate(**padded(model), max_new_tokens=3, num_beams=2),
        lambda model: model.bridge.generate(padded(model, ASKED[:1])["input_ids"], max_new_tokens=2, verbose=False),
        lambda model: model.hf(**padded(model)),
    ],
    ids=["sampled", "greedy", "hugging face", "beams", "bridge", "forward"],
)
def test_an_overflow_is_named_whatever_was_done(half, run):
    said = rf"overflow at layer 1: {str(half.plain.dtype).removeprefix('torch.')} holds numbers up to"
    with (
        pytest.raises(pp.PersonaProbeError, match=said),
        pp.steer(half, random_direction(half), layers=1, strength=huge(half), scope="all"),
    ):
        run(half)
    assert not half.steered
    greedy(half, steps=2)


def test_after_an_overflow_was_named_steering_goes_on(half):
    direction = random_direction(half)
    settings = [pp.Add(direction, 1, strength=huge(half)), pp.Add(direction, 1), None]
    with pp.steer(half, settings), pytest.raises(pp.PersonaProbeError, match="overflow at layer 1"):
        greedy(half, steps=2)
    with pp.steer(half, [*settings[1:], settings[1]]):
        greedy(half, steps=2)


def test_what_overflows_between_steered_layers_and_the_last_is_named(folders):
    model = overflowing(folders)
    direction = pp.Direction.from_vectors(np.ones((3, 32)), model)
    said = "between layer 0, the last that is steered, and layer 2"
    with pytest.raises(pp.PersonaProbeError, match=said), pp.steer(model, direction, layers=0, strength=1e-3):
        greedy(model)


def test_a_model_that_overflows_by_itself_is_left_alone_at_strength_zero(folders):
    model = overflowing(folders)
    ids = padded(model)
    plain = model.hf(**ids).logits
    assert not torch.isfinite(plain).all()
    with pp.steer(model, random_direction(model), layers="all", strength=0.0, scope="all"):
        assert torch.equal(model.hf(**ids).logits.nan_to_num(), plain.nan_to_num())


def test_what_can_be_held_is_not_touched_by_the_watch(half):
    """At the last layer too, where what is not finite would be taken out."""
    direction = random_direction(half)
    for strength in (0.5, 50.0):
        with pp.steer(half, direction, layers=2, strength=strength, scope="all"):
            steered = streams(half, layers=2)
        for one, two in zip(streams(half, layers=2), steered, strict=True):
            expected = (one.double() + strength * torch.from_numpy(direction.at(2)).double())[:, 0].to(half.plain.dtype)
            difference = (two[:, 0].double() - expected.double()).abs()
            assert (difference <= expected.double().abs() * torch.finfo(half.plain.dtype).eps + 1e-6).all()


def test_gradients_flow_past_the_watch(half):
    ids = padded(half, ASKED[:1])["input_ids"]
    half.hf.zero_grad()
    with pp.steer(half, random_direction(half), layers=1, strength=2.0, scope="all"):
        half.hf(ids, labels=ids).loss.backward()
    gradient = half.plain.model.layers[0].mlp.down_proj.weight.grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    half.hf.zero_grad()


def test_one_forward_that_overflows_is_remembered(half):
    overflow = Overflow(half, [1])
    for value in (1.0, float("inf"), 1.0):
        overflow.watched(1, torch.full((1, 2, 32), value, dtype=half.plain.dtype))
    with pytest.raises(pp.PersonaProbeError, match="overflow at layer 1"):
        overflow.check()
    overflow.check()
