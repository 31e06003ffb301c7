"""Each kind does what its formula says, in every precision, with gradients, on every way to hold a model."""

import contextlib

import numpy as np
import pytest
import torch
from peft import LoraConfig

import persona_probe as pp
from persona_probe.steering.interventions.cap import Cap
from persona_probe.steering.interventions.mean_ablate import MeanAblate
from tests.activations.test_capture import TALKS
from tests.models.test_load_options import OFFLOADED, adapter_on
from tests.steering.watching import ASKED, greedy, padded, random_direction, streams, watching

LAYER = 1
KINDS = ("add", "ablate", "subspace", "mean-ablate", "mean-ablate subspace", "clamp", "half", "lower", "upper", "both")


def subspace(model, k=3):
    return pp.directions.Subspace.from_directions([random_direction(model, seed) for seed in range(k)])


def made(model, name, scope="all"):
    """The intervention, and what it makes of ``h`` (float64), by its definition."""
    direction, space = random_direction(model), subspace(model)
    raw = direction.at(LAYER).astype(np.float64)
    unit = raw / np.linalg.norm(raw)
    basis = np.linalg.qr(space.bases[space.layers.index(LAYER)].astype(np.float64).T)[0].T
    reference = pp.capture(model, TALKS, sink_ratio=None)
    mean = reference.at(LAYER).mean(axis=0, dtype=np.float64)

    def bounded(low, high, share=1.0):
        return lambda h: h + share * (np.clip(h @ unit, low, high) - h @ unit)[:, None] * unit

    kinds = {
        "add": (pp.Add(direction, LAYER, strength=2.0, scope=scope), lambda h: h + 2.0 * raw),
        "ablate": (pp.Ablate(direction, LAYER, scope=scope), bounded(0, 0)),
        "subspace": (pp.Ablate(space, LAYER, scope=scope), lambda h: h - h @ basis.T @ basis),
        "mean-ablate": (
            MeanAblate(direction, LAYER, reference=reference, scope=scope),
            bounded(mean @ unit, mean @ unit),
        ),
        "mean-ablate subspace": (
            MeanAblate(space, LAYER, reference=reference, scope=scope),
            lambda h: h + (mean - h) @ basis.T @ basis,
        ),
        "clamp": (pp.Clamp(direction, LAYER, target=1.5, scope=scope), bounded(1.5, 1.5)),
        "half": (pp.Clamp(direction, LAYER, target=-2.0, strength=0.5, scope=scope), bounded(-2.0, -2.0, 0.5)),
        "lower": (Cap(direction, LAYER, lower=0.1, scope=scope), bounded(0.1, np.inf)),
        "upper": (Cap(direction, LAYER, upper=0.1, scope=scope), bounded(-np.inf, 0.1)),
        "both": (Cap(direction, LAYER, lower=-0.2, upper=0.1, scope=scope), bounded(-0.2, 0.1)),
    }
    return kinds[name]


@pytest.fixture(scope="module", params=["float32", "float64", "bfloat16", "float16"])
def precise(request, folders):
    return pp.load(folders("llama"), dtype=request.param)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_its_formula_in_every_precision(precise, name):
    setting, formula = made(precise, name)
    with torch.inference_mode(), pp.steer(precise, setting), watching(precise, LAYER) as forwards:
        pp.capture(precise, TALKS, span="all", sink_ratio=None)
    epsilon = torch.finfo(precise.plain.dtype).eps
    for seen in forwards:
        for row, (before, after) in enumerate(zip(seen.before, seen.after, strict=True)):
            size = seen.boundary.stops[row]
            expected = formula(before[:size].double().numpy())
            # Done in float32 (or more) and rounded once: half a unit in the last place, and float32's own rounding.
            slack = np.abs(expected) * epsilon * 0.51 + 2e-6 * (1 if epsilon > 1e-10 else 1e-8)
            assert (np.abs(after[:size].double().numpy() - expected) <= slack).all()
            assert after.dtype == before.dtype
            if name in ("ablate", "subspace") and epsilon < 1e-5:
                vectors = setting.read_vectors(LAYER).numpy()
                left = np.abs(after[:size].double().numpy() @ vectors.T).max(axis=1)
                assert (left <= 1e-5 * np.linalg.norm(before[:size].double().numpy(), axis=1)).all()


def test_a_clamp_takes_the_mean_of_activations_as_its_target(llama):
    direction, usual = random_direction(llama), pp.capture(llama, TALKS)
    by_hand = {layer: float(direction.project(usual)[:, i].mean()) for i, layer in enumerate(usual.layers)}
    assert pp.Clamp(direction, "all", target=usual).target == by_hand
    assert pp.Clamp(direction, LAYER, target=usual, strength=0.5).with_strength(1.0).target == by_hand
    with pp.steer(llama, direction, layers=LAYER, kind="clamp", target=by_hand):
        expected = pp.capture(llama, TALKS, span="all").values
    with pp.steer(llama, direction, layers=LAYER, kind="clamp", target=usual):
        np.testing.assert_array_equal(pp.capture(llama, TALKS, span="all").values, expected)
    # A direction with some of the layers, and activations of others.
    few = direction.select([1, 2])
    assert pp.Clamp(few, LAYER, target=usual).target == {1: by_hand[1], 2: by_hand[2]}
    with (
        pytest.raises(pp.PersonaProbeError, match="target has no value for layer 2; it has 1"),
        pp.steer(llama, pp.Clamp(few, 2, target=pp.capture(llama, TALKS, layers=[0, 1]))),
    ):
        pytest.fail("nothing was refused")
    with pytest.raises(pp.PersonaProbeError, match="3 rows at layers 0, and the direction has layers 1, 2"):
        pp.Clamp(few, LAYER, target=pp.capture(llama, TALKS, layers=0))
    with pytest.raises(pp.PersonaProbeError, match="target= holds 0 rows"):
        pp.Clamp(direction, LAYER, target=usual.where([False] * 3))
    with (
        pytest.raises(pp.PersonaProbeError, match="kind='add' does not take target"),
        pp.steer(llama, direction, layers=LAYER, target=usual),
    ):
        pytest.fail("nothing was refused")


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind not in ("add", "half")])
def test_what_sets_a_projection_is_idempotent(llama, name):
    setting, _ = made(llama, name)
    with pp.steer(llama, setting):
        once = streams(llama)
        with pp.steer(llama, setting):
            twice = streams(llama)
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
        assert torch.isfinite(one).all()


def test_a_subspace_that_is_orthonormal_to_four_digits_only_is_ablated_whole(llama):
    rng = np.random.default_rng(0)
    bases = np.stack([np.linalg.qr(rng.normal(size=(32, 4)))[0].T for _ in range(3)])
    rough = pp.directions.Subspace((bases + rng.normal(size=bases.shape) * 5e-6).astype(np.float32), (0, 1, 2))
    setting = pp.Ablate(rough, LAYER, scope="all")
    with pp.steer(llama, setting), watching(llama, LAYER) as forwards:
        pp.capture(llama, TALKS)
    basis = setting.read_vectors(LAYER).numpy()
    assert np.abs(basis @ basis.T - np.eye(4)).max() < 1e-12
    left = (forwards[0].after[0].double() @ torch.from_numpy(basis).T).norm(dim=-1)
    assert (left <= 1e-5 * forwards[0].before[0].norm(dim=-1)).all()


@pytest.mark.parametrize("name", ["add", "clamp"])
def test_strength_zero_is_bit_identical_in_half_precision_too(precise, name):
    setting, _ = made(precise, name)
    plain = streams(precise, sink_ratio=None)
    for steering in (setting.with_strength(0.0), [setting.with_strength(0.0)] * 3, [None, setting, None]):
        with pp.steer(precise, steering):
            steered = streams(precise, sink_ratio=None)
        same = [torch.equal(one, two) for one, two in zip(plain, steered, strict=True)]
        assert same == ([True, False, True] if isinstance(steering, list) and steering[0] is None else [True] * 3)


def test_directions_come_in_any_precision_and_numbers_from_numpy(llama):
    vectors = np.random.default_rng(0).normal(size=(3, 32))
    expected = None
    for vector in (vectors, vectors.astype(np.float32), torch.from_numpy(vectors), torch.from_numpy(vectors).float()):
        direction = pp.Direction.from_vectors(llama, vector)
        for layer, strength in ((1, 2), (np.int64(1), np.float32(2.0)), ([np.int32(1)], np.float64(2.0))):
            with pp.steer(llama, direction, layers=layer, strength=strength, scope="all"):
                steered = streams(llama)[0]
            expected = steered if expected is None else expected
            assert torch.equal(steered, expected)
    for bad in (True, float("nan"), "2", None):
        with pytest.raises(pp.PersonaProbeError, match="strength is"):
            pp.Add(direction, 1, strength=bad)
    for bad in (True, [True], 1.0, [1.5], "one", []):
        with pytest.raises(pp.PersonaProbeError, match="layer"), pp.steer(llama, direction, layers=bad):
            pytest.fail("nothing was refused")


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_the_formula(llama, name):
    """Through a steered layer, the gradient of a sum of steered numbers is the formula's own."""
    setting, _ = made(llama, name)
    # What is kept on the device by a forward without gradients must not break one with them.
    with pp.steer(llama, setting):
        greedy(llama, steps=2)
        weights = torch.randn(32, generator=torch.Generator().manual_seed(0))
        inside, outside = [], []
        block = llama.stream.blocks[LAYER]

        def enter(_module, _args, output):
            leaf = (output[0] if isinstance(output, tuple) else output).detach().clone().requires_grad_()
            inside.append(leaf)
            return (leaf, *output[1:]) if isinstance(output, tuple) else leaf

        def leave(_module, _args, output):
            outside.append(output[0] if isinstance(output, tuple) else output)

        handles = [block.register_forward_hook(enter, prepend=True), block.register_forward_hook(leave)]
        llama.hf(padded(llama, ASKED[:1])["input_ids"])
        for handle in handles:
            handle.remove()
    (outside[0] @ weights).sum().backward()
    hidden, unit = inside[0].detach().double(), torch.from_numpy(random_direction(llama).at(LAYER)).double()
    unit = unit / unit.norm()
    along = (weights.double() @ unit) * unit
    basis = setting.read_vectors(LAYER)
    projection = hidden @ unit
    lower = {"lower": 0.1, "both": -0.2}.get(name, -np.inf)
    upper = {"upper": 0.1, "both": 0.1}.get(name, np.inf)
    capped = ((projection < lower) | (projection > upper))[..., None] * along
    taken = {
        "add": 0 * along,
        "half": 0.5 * along,
        **dict.fromkeys(("ablate", "mean-ablate", "clamp"), along),
        **dict.fromkeys(("subspace", "mean-ablate subspace"), basis.T @ (basis @ weights.double())),
        **dict.fromkeys(("lower", "upper", "both"), capped),
    }[name]
    expected = (weights.double() - taken).expand_as(hidden)
    torch.testing.assert_close(inside[0].grad.double(), expected, rtol=0, atol=1e-5)
    if name in ("lower", "upper", "both"):
        assert 0 < (capped != 0).any(dim=-1).sum() < hidden.shape[1] or name == "both"


def test_weights_are_trained_under_steering(llama):
    """Each weight's gradient is that of a model which has the vector as a bias."""
    direction, ids = random_direction(llama), padded(llama, ASKED[:1])["input_ids"]
    vector = 2.0 * torch.from_numpy(direction.at(LAYER))
    gradients = []
    for inside in (True, False):
        llama.hf.zero_grad()
        if inside:
            context = pp.steer(llama, direction, layers=LAYER, strength=2.0, scope="all")
        else:
            context = contextlib.ExitStack()
            hook = llama.stream.blocks[LAYER].register_forward_hook(
                lambda _m, _a, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
            )
            context.callback(hook.remove)
        with context:
            llama.hf(ids, labels=ids).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in llama.hf.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_autocast_does_not_round_projections(llama):
    setting, formula = made(llama, "clamp")
    ids = padded(llama, ASKED[:1])["input_ids"]
    with torch.autocast("cpu", dtype=torch.bfloat16), pp.steer(llama, setting), watching(llama, LAYER) as forwards:
        llama.hf(ids)
    before, after = forwards[0].before[0].double().numpy(), forwards[0].after[0].double().numpy()
    np.testing.assert_allclose(after, formula(before), atol=1e-5)


def test_bounds_at_percentiles_are_those_of_the_reference(llama):
    direction = random_direction(llama)
    reference = pp.capture(llama, TALKS, reduce="tokens")
    for layers in (1, [0, 2], "all"):
        cap = Cap.at_percentiles(direction, layers, reference, lower=10, upper=75)
        for layer in cap.layers_in(llama):
            unit = direction.at(layer) / np.linalg.norm(direction.at(layer))
            low, high = np.percentile(reference.at(layer) @ unit, [10, 75])
            assert (cap.lower[layer], cap.upper[layer]) == pytest.approx((low, high))
    with pp.steer(llama, Cap.at_percentiles(direction, 1, reference, lower=10, upper=75)):
        inside = pp.capture(llama, TALKS, layers=1, reduce="tokens").at(1)
    unit = direction.at(1) / np.linalg.norm(direction.at(1))
    cap = Cap.at_percentiles(direction, 1, reference, lower=10, upper=75)
    projected = inside @ unit
    assert projected.min() == pytest.approx(cap.lower[1], abs=1e-5)
    assert projected.max() == pytest.approx(cap.upper[1], abs=1e-5)
    for arguments, said in (({}, "needs upper="), ({"upper": 101}, "101"), ({"lower": 80, "upper": 20}, "is above")):
        with pytest.raises(pp.PersonaProbeError, match=said):
            Cap.at_percentiles(direction, 1, reference, **arguments).check(llama)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({1: [1.0, 2.0]}, "must be 1 finite number"),
        ({1: float("nan")}, "must be 1 finite number"),
        ({0: 1.0}, "was not read at layer 1"),
        (None, "needs reference="),
    ],
)
def test_bad_references_are_refused(llama, reference, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        MeanAblate(random_direction(llama), 1, reference=reference).check(llama)


@pytest.mark.parametrize("way", ["live", "merged", "auto", "offloaded"])
def test_every_way_to_hold_a_model_is_steered_alike(folders, tmp_path, way):
    base = folders("qwen2")
    if way in ("live", "merged"):
        config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = pp.load(base, adapter=adapter_on(base, tmp_path / "a", config), merge=way == "merged")
    else:
        model = pp.load(base, device_map="auto" if way == "auto" else OFFLOADED)
    weights = [parameter.clone() for parameter in model.hf.parameters() if parameter.device.type != "meta"]
    plain, answered = streams(model), greedy(model)
    setting, formula = made(model, "clamp", scope="generation")
    for stop in (None, KeyboardInterrupt, RuntimeError):
        with contextlib.suppress(*([stop] if stop else [])), pp.steer(model, [setting, None, setting]):
            steered, texts, single = streams(model), greedy(model), greedy(model, batch_size=1)
            if stop:
                raise stop
    assert texts == single
    assert texts[1] == answered[1]
    for dialogue, one, two, setting_here in zip(TALKS, plain, steered, [True, False, True], strict=True):
        places = model.template.encode(dialogue).span("generation")
        expected = one.double().numpy()[:, LAYER]
        if setting_here:
            expected[places] = formula(expected[places])
        np.testing.assert_allclose(two.numpy()[:, LAYER], expected, atol=1e-4)
    assert all(torch.equal(one, two) for one, two in zip(plain, streams(model), strict=True))
    assert greedy(model) == answered
    now = [parameter for parameter in model.hf.parameters() if parameter.device.type != "meta"]
    assert all(torch.equal(one, two) for one, two in zip(weights, now, strict=True))


def test_nested_contexts_compose_and_the_inner_one_acts_first(any_model):
    direction = random_direction(any_model)
    add, clamp = (made(any_model, name)[0] for name in ("add", "clamp"))
    raw = torch.from_numpy(direction.at(LAYER))
    unit = raw / raw.norm()
    with pp.steer(any_model, add), pp.steer(any_model, clamp):
        after_clamp = streams(any_model)[0][:, LAYER] @ unit
    with pp.steer(any_model, clamp), pp.steer(any_model, add):
        after_add = streams(any_model)[0][:, LAYER] @ unit
    torch.testing.assert_close(after_add, torch.full_like(after_add, 1.5), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        after_clamp, torch.full_like(after_clamp, 1.5 + 2 * float(raw.norm())), rtol=0, atol=1e-4
    )
    half = pp.Add(direction, LAYER, strength=1.0, scope="generation")
    with pp.steer(any_model, pp.Add(direction, LAYER, strength=2.0, scope="generation")):
        once = greedy(any_model)
    with pp.steer(any_model, half), pp.steer(any_model, [half] * 3):
        assert greedy(any_model) == once
        batch = padded(any_model)
        hugging = any_model.hf.generate(**batch, do_sample=False, max_new_tokens=8)
    texts = any_model.tokenizer.batch_decode(hugging[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [text.strip() for text in texts] == once
