"""What a user gets wrong is said before anything is sampled, or as soon as it can be seen."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.behaviour.multiple_choice import Choice, choice_accuracy, score_choices
from persona_probe.models.stream import guards
from persona_probe.steering.search.realign import realign_by_steering
from tests.activations.test_capture import TALKS
from tests.steering.watching import random_direction

ASKED = [dialogue.without_answer() for dialogue in TALKS]


def test_steering_one_model_and_asking_another_is_said(llama, folders):
    other = pp.load(folders("gpt2"))
    with (
        pytest.warns(pp.PersonaProbeWarning, match=r"no forward pass of .*llama reached layer 1.*steer that one"),
        pp.steer(llama, random_direction(llama), layers=1),
    ):
        other.generate(ASKED, pp.Sampling(max_new_tokens=1))


def test_what_is_said_hangs_on_the_steered_model_alone(llama, folders):
    other = pp.load(folders("gpt2"))
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
        warnings.simplefilter("error")
        with pp.steer(llama, random_direction(llama), layers=1):
            llama.hf.generate(guards.probe_ids(llama), max_new_tokens=1)
            thread.submit(other.generate, ASKED, pp.Sampling(max_new_tokens=1)).result()
        with pp.steer(llama, random_direction(llama), layers=1, strength=0.0):
            llama.generate(ASKED, pp.Sampling(max_new_tokens=1))
    with (
        pytest.warns(pp.PersonaProbeWarning, match="no forward pass of .*llama reached layer 2"),
        pp.steer(llama, random_direction(llama), layers=2),
    ):
        pp.capture(llama, TALKS, layers=0)


def test_a_scope_that_holds_no_token_is_said(llama):
    settings = [pp.Add(random_direction(llama), 1, scope=scope) for scope in ("generation", "window:50-60", "prompt")]
    with (
        pytest.warns(pp.PersonaProbeWarning, match=r"1 of 3 interventions touched no token.*'window:50-60'"),
        pp.steer(llama, settings),
    ):
        llama.generate(ASKED, pp.Sampling(max_new_tokens=3))
    with warnings.catch_warnings(), pp.steer(llama, random_direction(llama), layers=1, scope="first_k:1"):
        warnings.simplefilter("error")
        llama.generate(ASKED, pp.Sampling(max_new_tokens=3))


def test_a_list_is_for_every_call_within_its_context(llama):
    settings = [pp.Add(random_direction(llama), 1)] * 3
    with pp.steer(llama, settings):
        llama.generate(ASKED, pp.Sampling(max_new_tokens=1))
        with pytest.raises(pp.PersonaProbeError, match="given 3 interventions, but 2 dialogues"):
            llama.generate(ASKED[:2], pp.Sampling(max_new_tokens=1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: pp.steering.Cap(d, 1, lower=2.0, upper=1.0), "lower bound, 2, is above the upper one, 1"),
        (lambda d: pp.steering.Cap(d, [0, 1], lower={0: 0.0, 1: 5.0}, upper=1.0), "at layer 1, 5, is above"),
        (lambda d: pp.steering.Gate(pp.Ablate(d, 1), d, layer=1), "needs LayerProbes.*not a Direction"),
        (lambda d: pp.steering.MeanAblate(d, 1, reference=3.0), "reference is a float"),
        (lambda d: pp.Clamp(d, 1, target=np.ones(3)), "or a mapping from layers"),
        (lambda d: pp.steering.bake(None, d, "out"), "model must be a Model, but this is None"),
    ],
)
def test_wrong_things_are_named(llama, make, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        make(random_direction(llama))


@pytest.mark.parametrize(
    ("what", "settings", "said"),
    [
        ("evil", {"layers": 1}, "steer was given a str .*; give a Direction"),
        (None, {"layers": 1}, "steer was given None"),
        ("direction", {"layers": 1, "kind": "gate"}, r"make it with pp\.steering\.Gate"),
        ("direction", {"layers": 1, "kind": "latents"}, r"make it with pp\.latents\.EditLatents"),
    ],
)
def test_what_cannot_be_steered_with_says_what_can(llama, what, settings, said):
    given = random_direction(llama) if what == "direction" else what
    with pytest.raises(pp.PersonaProbeError, match=said), pp.steer(llama, given, **settings):
        pytest.fail("nothing was refused")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_coherence": 90}, "min_coherence is 90; it is a ratio"),
        ({"n_random": -1}, "n_random is -1"),
        ({"definition": "betly"}, "unknown EM-rate definition 'betly'"),
        ({"goal": "supress"}, "unknown goal 'supress'"),
        ({"scope": "first_k:2"}, "'first_k:2' is not a span"),
    ],
)
def test_a_search_refuses_before_it_samples(llama, settings, said):
    pair = pp.load_pair(llama, llama)
    with pytest.raises(pp.PersonaProbeError, match=said):
        realign_by_steering(pair, random_direction(llama), ASKED[:1], lambda _: pytest.fail("it sampled"),
                            development=ASKED[1:], **settings)  # fmt: skip


def test_a_model_that_is_destroyed_is_right_about_nothing(llama):
    items = [Choice("What is it?", ("One thing.", "Another thing."), 0), Choice("And?", ("Yes.", "No."), 1)]
    with pp.steer(llama, random_direction(llama), layers=1, strength=1e38, scope="all"):
        table = score_choices(llama, items)
    assert table["log_prob"].isna().all()
    assert choice_accuracy(table).value == 0.0


def test_a_bake_too_weak_to_be_checked_is_refused(folders, tmp_path):
    model = pp.load(folders("llama"), dtype="bfloat16")
    direction = random_direction(model)
    with pytest.raises(pp.PersonaProbeError, match="too little to be distinguished from rounding in bfloat16"):
        pp.steering.bake(model, pp.Add(direction, 1, strength=1e-4, scope="all"), tmp_path / "weak")
    assert not (tmp_path / "weak").exists()


def test_a_direction_can_be_adopted_by_the_same_model_in_another_precision(folders, llama):
    half = pp.load(folders("llama"), dtype="bfloat16")
    direction = random_direction(llama)
    with pytest.raises(pp.PersonaProbeError, match=r"adopted_by\(model\)"), pp.steer(half, direction, layers=1):
        pytest.fail("nothing was refused")
    adopted = direction.adopted_by(half)
    with pp.steer(half, adopted, layers=1):
        half.generate(ASKED, pp.Sampling(max_new_tokens=1))
    assert adopted.card["adopted_by"] == [half.name]
