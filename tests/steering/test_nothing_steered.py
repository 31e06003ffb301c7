"""A steering context in which nothing was steered says so when it closes, whatever was run inside instead."""

import warnings

import pytest
from transformers import AutoModelForCausalLM

import persona_probe as pp
from tests.activations.test_capture import TALKS
from tests.latents.conftest import make_sae
from tests.steering.test_per_row import probes_for
from tests.steering.watching import ASKED, greedy, padded, random_direction

SHORT = pp.Sampling(max_new_tokens=2, temperature=0)


def edited(model, kind="ablate", amount=None):
    return pp.latents.EditLatents(make_sae("standard"), pp.latents.LatentEdit([3], kind, amount))


KINDS = {
    "add first": lambda m: pp.Add(random_direction(m, 1), 0),
    "add": lambda m: pp.Add(random_direction(m), 1),
    "add everywhere": lambda m: pp.Add(random_direction(m), "all", scope="all"),
    "add nothing": lambda m: pp.Add(random_direction(m), [1, 2], strength=0.0),
    "ablate": lambda m: pp.Ablate(random_direction(m), "all"),
    "ablate a subspace": lambda m: pp.Ablate(pp.directions.Subspace.from_directions([random_direction(m)]), 1),
    "ablate everywhere": lambda m: pp.steering.AblateEverywhere(random_direction(m), 1),
    "mean-ablate": lambda m: pp.steering.MeanAblate(random_direction(m), 1, reference=pp.capture(m, TALKS)),
    "clamp": lambda m: pp.Clamp(random_direction(m), 1, target=3.0),
    "clamp no way": lambda m: pp.Clamp(random_direction(m), 1, target=3.0, strength=0.0),
    "cap": lambda m: pp.steering.Cap(random_direction(m), 1, upper=-9.0),
    "gate": lambda m: pp.steering.Gate(pp.Add(random_direction(m), 1), probes_for(m), layer=0),
    "latents": edited,
    "list": lambda m: [pp.Add(random_direction(m), 1), None, pp.Clamp(random_direction(m), 2, target=3.0)],
    "list of nothing": lambda m: [pp.Add(random_direction(m), 1, strength=0.0)] * 3,
}


def instead(model, folder):
    """What can be run inside a context instead of the steered model."""
    other, theirs = pp.load(folder), AutoModelForCausalLM.from_pretrained(folder)
    return {
        "nothing": lambda: None,
        "no dialogue": lambda: model.generate([], SHORT),
        "another model": lambda: other.generate(ASKED, SHORT),
        "its hf": lambda: other.hf.generate(**padded(other), max_new_tokens=2),
        "its capture": lambda: pp.capture(other, TALKS),
        "its bridge": lambda: other.bridge(padded(other)["input_ids"]),
        "an object of transformers": lambda: theirs.generate(**padded(model), max_new_tokens=2),
        "its forward pass": lambda: theirs(**padded(model)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_said_that_nothing_was_steered(llama, folders, kind):
    what = KINDS[kind](llama)
    ran = instead(llama, folders("llama"))
    for name in ran if kind in ("add", "ablate everywhere", "add nothing") else ("nothing", "another model"):
        with pytest.warns(pp.PersonaProbeWarning, match="nothing was steered") as seen, pp.steer(llama, what):
            ran[name]()
        assert [w.filename for w in seen] == [__file__]
    with pytest.raises(RuntimeError, match="mine"), pp.steer(llama, what):  # and only the error, if there is one
        raise RuntimeError("mine")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gate"])
def test_nothing_is_said_if_the_model_ran(llama, kind):
    what = KINDS[kind](llama)
    for run in (
        lambda: greedy(llama, steps=2),
        lambda: pp.capture(llama, TALKS),
        lambda: llama.hf.generate(**padded(llama), max_new_tokens=2),
        lambda: llama.bridge.generate(padded(llama, ASKED[:1])["input_ids"], max_new_tokens=2, verbose=False),
    )[: 3 if kind.startswith("list") else 4]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pp.steer(llama, what):
                run()


def test_each_of_nested_contexts_answers_for_itself(llama, folders):
    other = pp.load(folders("llama"))
    with (
        pytest.warns(pp.PersonaProbeWarning, match="no forward pass of .*reached layer 2"),
        pp.steer(llama, random_direction(llama), layers=1),
        pp.steer(other, random_direction(other), layers=2),
    ):
        greedy(llama)
    with pp.steer(llama, random_direction(llama), layers=1):
        with pp.steer(llama, pp.steering.AblateEverywhere(random_direction(llama), 1)):
            greedy(llama, steps=1)
        with pytest.warns(pp.PersonaProbeWarning, match="reached layer 0"), pp.steer(llama, KINDS["add first"](llama)):
            pass


def test_the_other_model_of_a_pair_is_another_model(llama, folders, tmp_path):
    adapter = tmp_path / "adapter"
    pp.finetune(llama, TALKS, pp.LoraSettings(steps=1, batch=2), adapter)
    pair = pp.load_pair(folders("llama"), adapter)
    for steered, run in ((pair.before, pair.after), (pair.after, pair.before)):
        for inside in (lambda: greedy(run), lambda: run.hf.generate(**padded(run), max_new_tokens=1)):  # noqa: B023
            with (
                pytest.warns(pp.PersonaProbeWarning, match="nothing was steered"),
                pp.steer(steered, random_direction(steered), layers=1),
            ):
                inside()


def test_layers_that_were_not_reached_are_said(llama):
    direction = random_direction(llama)
    # Layers after the last one that is read cannot change what was read.
    with warnings.catch_warnings(), pp.steer(llama, direction, layers="all"):
        warnings.simplefilter("error")
        pp.capture(llama, TALKS, layers=1)
    with (
        pytest.warns(pp.PersonaProbeWarning, match="1 of 3 .*no forward pass of .* reached layer 2, where Add"),
        pp.steer(llama, [pp.Add(direction, 1), pp.Add(direction, 2), pp.Add(direction, [0, 2])]),
    ):
        pp.capture(llama, TALKS, layers=1)


def test_a_gate_that_is_open_outside_its_scope_only_is_never_open(llama):
    probes = probes_for(llama)
    token = pp.capture(llama, TALKS[:1], span="all", reduce="tokens", layers=0)
    scores = token.values[:, 0] @ probes.at(0)[0] + probes.at(0)[1]
    for scope, threshold, opens in (
        ("prompt", scores.max() - 1e-3, int(scores.argmax()) < llama.template.encode(TALKS[0]).prompt_length),
        ("all", scores.max() - 1e-3, True),
        ("all", scores.max() + 1e-3, False),
    ):
        inner = pp.Add(random_direction(llama), 1, scope=scope)
        gate = pp.steering.Gate(inner, probes, layer=0, threshold=float(threshold))
        with warnings.catch_warnings(record=True) as seen, pp.steer(llama, gate):
            warnings.simplefilter("always")
            pp.capture(llama, TALKS[:1])
        assert [("never open" in str(w.message)) for w in seen] == ([] if opens else [True])


def test_latent_steering_says_it_too(llama):
    with (
        pytest.warns(pp.PersonaProbeWarning, match="nothing was steered"),
        pp.latents.steer_latents(llama, make_sae("standard"), pp.latents.LatentEdit([3])),
    ):
        pass
