"""Gates: an intervention is made where the probe fires, and nowhere else."""

import contextlib

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.models.stream.boundary import Boundary
from persona_probe.steering.gating import GateLayer
from persona_probe.steering.interventions.gate import Gate
from tests.activations.test_capture import TALKS
from tests.steering.test_per_row import probes_for
from tests.steering.watching import ASKED, greedy, padded, random_direction, streams, watching

LAYER = 1


def scores(probes, seen, layer=LAYER):
    weights, intercept = probes.at(layer)
    return seen.before.double().numpy() @ weights + intercept


def real(seen):
    """The tokens that are no padding."""
    position = seen.offset + np.arange(seen.before.shape[1])
    return (position >= seen.boundary.begins[:, None]) & (position < seen.boundary.stops[:, None])


def open_at(scored, inside, hold):
    """By the definition, over the whole text of a row."""
    fires = (scored > 0) & inside
    return np.maximum.accumulate(fires, axis=1) if hold else fires


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_gate_lets_through_where_its_probe_fires(any_model, hold, use_cache):
    direction, read = random_direction(any_model), [stream[:, LAYER].numpy() for stream in streams(any_model)]
    for seed in range(50):
        probes = probes_for(any_model, seed)
        scored = [stream @ probes.at(LAYER)[0] for stream in read]
        # A gate that holds opens at the first of the few tokens that fire, which must not be every dialogue's first.
        threshold = np.quantile(np.concatenate(scored), 0.9 if hold else 0.6)
        if max(start for score in scored for start in score[:3]) < threshold:
            break
    gate = Gate(pp.Add(direction, LAYER, scope="all"), probes, layer=LAYER, threshold=threshold, hold=hold)
    more = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "use_cache": use_cache}
    with pp.steer(any_model, gate), watching(any_model, LAYER) as forwards:
        any_model.hf.generate(**padded(any_model), **more)
        first, forwards[:] = list(forwards), []
        any_model.hf.generate(**padded(any_model), **more)
        pp.capture(any_model, TALKS)
    halves = [[first], [forwards[:8]], [forwards[8:]]] if use_cache else [[[one] for one in first + forwards]]
    fired = []
    for group in (text for half in halves for text in half):
        scored = np.concatenate([scores(probes, seen) - threshold for seen in group], axis=1)
        inside = np.concatenate([real(seen) for seen in group], axis=1)
        moved = torch.cat([(seen.after != seen.before).any(dim=-1) for seen in group], dim=1).numpy()
        sure = np.abs(scored) > 1e-4
        expected = open_at(scored, inside, hold)
        clear = np.logical_and.accumulate(sure | ~inside, axis=1) if hold else sure
        np.testing.assert_array_equal(moved[inside & clear], expected[inside & clear])
        fired.append(expected[inside].mean())
        assert not moved[~inside & ~expected].any()
    assert 0.02 < np.mean(fired) < 0.98


def test_gates_of_a_bare_forward_are_decided_anew_each_time(llama):
    """Two forwards of one size, where what fired in the first does not in the second."""
    direction, probes = random_direction(llama), probes_for(llama)
    gate = Gate(pp.Add(direction, LAYER, scope="all"), probes, layer=LAYER)
    ids = torch.arange(30).view(3, 10) + 5
    with pp.steer(llama, gate), watching(llama, LAYER) as forwards, torch.no_grad():
        for batch in (ids, ids.flip(0).flip(1), ids):
            llama.hf(batch)
    for seen in forwards:
        moved = (seen.after != seen.before).any(dim=-1).numpy()
        np.testing.assert_array_equal(moved, scores(probes, seen) > 0)
        assert 0 < moved.mean() < 1


def test_an_open_gate_is_none_and_a_shut_one_is_bit_identical(any_model):
    inner = pp.Clamp(random_direction(any_model), [1, 2], target=3.0)
    plain, text = streams(any_model), greedy(any_model)
    with pp.steer(any_model, inner):
        through, said = streams(any_model), greedy(any_model)
    for threshold, expected, answers in ((1e9, plain, text), (-1e9, through, said)):
        for hold in (False, True):
            gate = Gate(inner, probes_for(any_model), layer=0, threshold=threshold, hold=hold)
            shut = pytest.warns(pp.PersonaProbeWarning, match="1 of [12] .*gate was never open")
            said_so = shut if threshold > 0 else contextlib.nullcontext()
            with said_so, pp.steer(any_model, gate):
                assert all(torch.equal(one, two) for one, two in zip(streams(any_model), expected, strict=True))
                assert greedy(any_model) == answers
            mixed = [gate, None, inner]
            with said_so, pp.steer(any_model, mixed):
                found = streams(any_model)
            torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
            assert torch.equal(found[1], plain[1])
            torch.testing.assert_close(found[2], through[2], rtol=0, atol=1e-5)


def test_padding_never_fires_a_gate_that_holds(llama):
    """Batched is single: padding would open the shorter rows' gates from their first token on."""
    for seed in range(6):
        gate = Gate(
            pp.Add(random_direction(llama), LAYER, strength=4.0),
            probes_for(llama, seed),
            layer=LAYER,
            hold=True,
            threshold=1.5,
        )
        with pp.steer(llama, gate):
            assert greedy(llama) == greedy(llama, batch_size=1)
        with pp.steer(llama, [gate] * 3):
            assert greedy(llama) == greedy(llama, batch_size=2)


def test_gates_keep_half_and_double_precision(folders):
    for dtype in ("bfloat16", "float64"):
        model = pp.load(folders("llama"), dtype=dtype)
        probes = probes_for(model)
        gate = Gate(pp.Add(random_direction(model), LAYER, strength=5.0, scope="all"), probes, layer=LAYER)
        with pp.steer(model, gate), watching(model, LAYER) as forwards:
            greedy(model)
        for seen in forwards:
            scored, moved = scores(probes, seen), (seen.after != seen.before).any(dim=-1).numpy()
            sure = np.abs(scored) > (1e-12 if dtype == "float64" else 1e-5)
            np.testing.assert_array_equal(moved[sure & real(seen)], (scored > 0)[sure & real(seen)])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"num_beams": 2}, "without beams"),
        ({"num_return_sequences": 2, "do_sample": True}, "one sequence per prompt"),
        ({"prompt_lookup_num_tokens": 3}, "must read every token once"),
    ],
)
def test_what_cannot_be_held_is_refused_clearly(llama, how, said):
    gate = Gate(pp.Add(random_direction(llama), LAYER), probes_for(llama), layer=LAYER, hold=True)
    text = "the law. the law? the law. the law?"
    ids = padded(llama, [pp.Dialogue.from_messages([{"role": "user", "content": text}])])
    more = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12, **how}
    with pp.steer(llama, gate), pytest.raises(pp.PersonaProbeError, match=said):
        llama.hf.generate(**ids, **more)
    with pp.steer(llama, gate), pytest.raises(pp.PersonaProbeError, match="bare forward"):
        llama.hf(**ids)
    free = Gate(gate.inner, gate.probes, layer=LAYER)
    with pp.steer(llama, free):
        llama.hf.generate(**ids, **more)


@pytest.mark.parametrize(
    ("inner", "layer", "said"),
    [
        (lambda d: pp.Add(d, 1), 2, "reads layer 2, after layer 1"),
        (lambda d: pp.Add(d, "all"), 1, "after layer 0"),
        (lambda d: "add", 0, "not a str"),
        (lambda d: pp.Add(d, 1), -1, "no probe of layer -1"),
        (lambda d: pp.Add(d, 1, scope="nowhere"), 0, "unknown scope"),
    ],
)
def test_bad_gates_raise_before_anything_runs(llama, inner, layer, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        Gate(inner(random_direction(llama)), probes_for(llama), layer=layer).check(llama)


def test_a_gate_takes_the_strength_and_the_null_of_what_it_lets_through(llama):
    gate = Gate(pp.Add(random_direction(llama), LAYER, strength=2.0), probes_for(llama), layer=0, hold=True)
    assert (gate.strength, gate.with_strength(5.0).strength, gate.with_strength(5.0).hold) == (2.0, 5.0, True)
    other = random_direction(llama, 4)
    with pp.steer(llama, gate.along(other)), watching(llama, LAYER) as forwards:
        greedy(llama, ASKED)
    moved = torch.cat([(seen.after - seen.before).flatten(0, 1) for seen in forwards])
    moved = moved[moved.norm(dim=1) > 1e-3]
    unit = torch.from_numpy(other.at(LAYER)) / np.linalg.norm(other.at(LAYER))
    torch.testing.assert_close(moved @ unit, moved.norm(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        moved.norm(dim=1),
        torch.full((len(moved),), 2 * float(np.linalg.norm(random_direction(llama).at(LAYER)))),
        rtol=1e-4,
        atol=1e-4,
    )


def test_padding_that_would_fire_does_not_open_what_holds(llama):
    gates = GateLayer(llama, [Gate(pp.Add(random_direction(llama), LAYER), probes_for(llama), layer=LAYER, hold=True)])
    weights = torch.from_numpy(probes_for(llama).at(LAYER)[0]).float()
    hidden = torch.stack([weights, -weights, -weights]).expand(2, 3, 32)
    real = torch.tensor([[False, True, True], [True, True, True]])
    found = gates.fires(hidden, 0, None, real, Boundary.of_prompts([2, 3], 3))
    assert found.tolist() == [[False] * 3, [True] * 3]
