"""Each row its own intervention: as if each had run alone."""

import contextlib
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import persona_probe as pp
from persona_probe.latents.steering import EditLatents, LatentEdit
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.steering.interventions.cap import Cap
from persona_probe.steering.interventions.gate import Gate
from persona_probe.steering.interventions.mean_ablate import MeanAblate
from tests.activations.test_capture import TALKS
from tests.latents.conftest import make_sae
from tests.steering.watching import ASKED, greedy, padded, random_direction, streams

LAYER = 1


def probes_for(model, seed=9):
    """A probe a layer that fires at about half of the tokens."""
    probes = LayerProbes()
    probes.layers_ = tuple(range(model.n_layers))
    probes.weights_ = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    probes.intercept_ = np.zeros(model.n_layers)
    probes.card_ = {}
    return probes


def settings_for(model):
    """One of every kind, with layers, scopes, directions and strengths of their own, and two of nothing."""
    one, other = random_direction(model, 0), random_direction(model, 1)
    space = pp.directions.Subspace.from_directions([one, other])
    probes = probes_for(model)
    strong = pp.Add(other, [LAYER, 2], strength=3.0, scope="all")
    return [
        pp.Add(one, "all", strength=2.0),
        pp.Add(other, LAYER, strength=-3.0, scope="all"),
        None,
        pp.Clamp(one, [0, 2], target={0: 4.0, 2: -4.0}, scope="response"),
        pp.Ablate(space, LAYER, scope="all"),
        MeanAblate(other, LAYER, reference={LAYER: 3.0}, scope="prompt"),
        Cap(one, LAYER, upper=-0.5, scope="first_k:3"),
        Cap(other, LAYER, lower=1.0, scope="positions:0,-1"),
        Gate(strong, probes, layer=0),
        Gate(pp.Add(one, 2, strength=-4.0), probes, layer=2, threshold=-3.0, hold=True),
        Gate(strong, probes_for(model, 3), layer=1),
        EditLatents(make_sae(), LatentEdit([3, 40], "add", 6.0)),
        EditLatents(make_sae("topk"), LatentEdit([7], "clamp", 20.0), scope="turn:0"),
        pp.Add(one, LAYER, strength=0.0),
        strong,
        Gate(EditLatents(make_sae(), LatentEdit([3], "clamp", 30.0), scope="all"), probes, layer=1),
    ]


def alone(model, setting):
    return contextlib.nullcontext() if setting is None else pp.steer(model, setting)


@pytest.mark.parametrize("budget", [4096, 60])
def test_streams_are_those_of_each_run_alone(any_model, budget):
    settings = settings_for(any_model)
    dialogues = [TALKS[row % 3] for row in range(len(settings))]
    plain = streams(any_model, dialogues)
    with pp.steer(any_model, settings):
        together = streams(any_model, dialogues, tokens_per_batch=budget)
    for setting, dialogue, found, before in zip(settings, dialogues, together, plain, strict=True):
        with alone(any_model, setting):
            (expected,) = streams(any_model, [dialogue])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        changes = setting is not None and setting.strength != 0
        assert changes == (not torch.allclose(found, before, atol=1e-4)), setting


@pytest.mark.parametrize("batch_size", [128, 5])
def test_answers_are_those_of_each_run_alone(any_model, batch_size):
    settings = settings_for(any_model)
    asked = [ASKED[row % 3] for row in range(len(settings))]
    with pp.steer(any_model, settings):
        together = greedy(any_model, asked, batch_size=batch_size)
        any_model.hf.generation_config.use_cache = False
        try:
            assert greedy(any_model, asked) == together
        finally:
            any_model.hf.generation_config.use_cache = True
    for setting, dialogue, found in zip(settings, asked, together, strict=True):
        with alone(any_model, setting):
            assert greedy(any_model, [dialogue]) == [found], setting
    assert sum(one != other for one, other in zip(together, greedy(any_model, asked), strict=True)) >= 4


def test_a_sweep_is_one_batch(any_model):
    """K strengths and directions on one question, ``n`` answers and all."""
    sweep = [
        pp.Clamp(random_direction(any_model, seed), LAYER, target=5.0, strength=strength)
        for seed in range(2)
        for strength in (0.0, 0.5, 1.0, 2.0)
    ]
    with pp.steer(any_model, sweep):
        batched = greedy(any_model, ASKED[:1], n=len(sweep))
        read = streams(any_model, TALKS[:1] * len(sweep))
    for setting, text, stream in zip(sweep, batched, read, strict=True):
        with pp.steer(any_model, setting):
            assert greedy(any_model, ASKED[:1]) == [text]
            torch.testing.assert_close(streams(any_model, TALKS[:1])[0], stream, rtol=0, atol=1e-5)


def test_many_rows_of_few_interventions_share_them(llama):
    """One object that is named for many rows is checked, stacked and decided once."""
    one, gate = settings_for(llama)[1], settings_for(llama)[8]
    with (
        mock.patch.object(pp.Add, "at", autospec=True, side_effect=pp.Add.at) as made,
        pp.steer(llama, [one, gate] * 30),
    ):
        texts = greedy(llama, ASKED[:1], n=60)
    assert made.call_count < 10
    for setting, text in ((one, texts[0]), (gate, texts[1])):
        with pp.steer(llama, setting):
            assert greedy(llama, ASKED[:1]) == [text]
    assert texts == texts[:2] * 30


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_beams_of_one_batch_are_those_of_each_prompt_alone(any_model, how):
    settings = [setting for place, setting in enumerate(settings_for(any_model)) if place in (0, 3, 8)]
    more = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, **how}
    with pp.steer(any_model, settings):
        together = any_model.hf.generate(**padded(any_model), **more)[:, -6:]
    each = how.get("num_return_sequences", 1)
    for row, (setting, dialogue) in enumerate(zip(settings, ASKED, strict=True)):
        with pp.steer(any_model, setting):
            expected = any_model.hf.generate(**padded(any_model, [dialogue]), **more)[:, -6:]
        assert torch.equal(together[row * each : (row + 1) * each], expected)


def test_too_few_and_too_many_interventions_are_refused(llama):
    one = pp.Add(random_direction(llama), LAYER)
    with (
        pytest.raises(pp.PersonaProbeError, match="given 2 interventions, but 3 dialogues"),
        pp.steer(llama, [one] * 2),
    ):
        greedy(llama)
    with (
        pytest.raises(pp.PersonaProbeError, match="given 4 interventions, but 3 dialogues"),
        pp.steer(llama, [one] * 4),
    ):
        greedy(llama)
    with pytest.raises(pp.PersonaProbeError, match="a batch of 3 prompts"), pp.steer(llama, [one] * 4):
        llama.hf.generate(**padded(llama), max_new_tokens=1)
    for bad, said in (
        ([None] * 3, "no dialogue has"),
        ([], "no dialogue has"),
        ([one, 2.0], "intervention 1 .* float"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=said), pp.steer(llama, bad):
            pytest.fail("nothing was refused")
    assert not llama.steered
    assert llama.boundary is None


WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "_to_copy")


class Waiting(TorchDispatchMode):
    """Counts what makes the host wait for a device, and copies to and from one."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        boolean_index = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if self.open and (name in WAITS or boolean_index):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_no_token_waits_for_the_device(llama):
    """While tokens are decoded, our own code asks for no number and copies nothing, whatever the interventions."""
    settings = [setting for setting in settings_for(llama) if not isinstance(setting, EditLatents)]
    settings = [s for s in settings if not (isinstance(s, Gate) and isinstance(s.inner, EditLatents))]
    asked = [ASKED[row % 3] for row in range(len(settings))]
    from persona_probe.steering.engine import Engine

    write, waiting, written = Engine.write, Waiting(), []

    def watched(self, layer, offset, hidden):
        waiting.open = hidden.shape[1] == 1
        written.append(waiting.open)
        try:
            return write(self, layer, offset, hidden)
        finally:
            waiting.open = False

    with mock.patch.object(Engine, "write", watched), pp.steer(llama, settings), waiting:
        greedy(llama, asked, steps=6)
        llama.hf.generate(**padded(llama, asked), max_new_tokens=6, min_new_tokens=6)
    assert sum(written) >= 2 * 5 * 3
    assert waiting.found == []
    with waiting:
        waiting.open = True
        assert bool(torch.ones(3)[torch.tensor([True, False, True])].sum() > 1)
    assert "is_nonzero" in waiting.found or "_local_scalar_dense" in waiting.found
