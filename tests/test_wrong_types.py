"""What is given in place of something else is named in one sentence, by every public function; so are old classes."""

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import persona_probe as pp
from persona_probe.errors import NUMBER, PATH, WHOLE, check_types, of_earlier_import, what_is
from persona_probe.statistics.auroc import auroc
from persona_probe.statistics.rates import mean_estimate
from tests.activations.test_capture import TALKS
from tests.latents.conftest import make_sae
from tests.steering.test_per_row import probes_for
from tests.steering.watching import random_direction


class Things:
    """One object of each kind, for one model."""

    def __init__(self, model):
        self.model, self.talks = model, list(TALKS)
        self.asked = [talk.without_answer() for talk in TALKS]
        self.direction, self.other = random_direction(model), random_direction(model, 1)
        self.read = pp.capture(model, TALKS)
        self.pair = pp.load_pair(model, model)
        self.captures = pp.capture(self.pair, TALKS)
        self.probes, self.sae = probes_for(model), make_sae("standard")
        self.judge = pp.persona_world.OracleJudge()
        self.poles = [pp.behaviour.PreferencePair("Really?", "Yes.", "No.")]

    def wrong(self):
        """What users give by mistake, by name."""
        return {
            "text": "evil",
            "None": None,
            "number": 0.5,
            "a dict": {"a": 1},
            "texts": ["Hi"],
            "object": object(),
            "an array": np.ones((2, 3)),
            "a tensor": torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True),
            "a series": pd.Series([1, 2]),
            "a table": pd.DataFrame({"a": [1]}),
            "a generator": (talk for talk in self.talks),
            "messages": [[{"role": "user", "content": "Hi"}]],
            "the class": pp.Direction,
            "the pair": self.pair,
            "the model": self.model,
            "a direction": self.direction,
            "one dialogue": self.talks[0],
            "activations": self.read,
            "captures": self.captures,
            "the SAE": self.sae,
        }


def names_it(message, wrong):
    """Whether a message says what was given: its type, its value, or its shape or kind of numbers."""
    item = next(iter(wrong.values() if isinstance(wrong, dict) else wrong)) if isinstance(wrong, list | dict) else wrong
    seen = [what_is(wrong), what_is(item), type(wrong).__name__, type(item).__name__, repr(wrong)]
    seen += [what_is(key) for key in wrong] if isinstance(wrong, dict) else []
    shape = tuple(getattr(wrong, "shape", ()))
    return any(
        one in message
        for one in [*seen, *([wrong] if isinstance(wrong, str) else []), *([str(shape)] if shape else [])]
    )


def monitored(things, wrong, **of_sampling):
    with pp.probes.monitor(things.model, things.probes, layer=1):
        things.model.generate(wrong, **of_sampling)


DOORS = {
    "generate under a monitor": lambda t, x: monitored(t, x),
    "sampling under a monitor": lambda t, x: monitored(t, t.asked, sampling=x),
    "track_latents": lambda t, x: pp.latents.track_latents(t.model, x, t.sae, [1], t.talks, steps=[1.0]),
    "from_vectors": lambda t, x: pp.Direction.from_vectors(x, np.ones((3, 32))),
    "vectors": lambda t, x: pp.Direction.from_vectors(t.model, x),
    "project": lambda t, x: t.direction.project(x),
    "adopted_by": lambda t, x: t.direction.adopted_by(x),
    "top_tokens": lambda t, x: t.direction.top_tokens(x),
    "Direction.load": lambda t, x: pp.Direction.load(x),
    "Subspace": lambda t, x: pp.directions.Subspace.from_directions(x),
    "cosines": lambda t, x: pp.directions.cosine_table(x),
    "find_direction": lambda t, x: pp.find_direction(x, t.read),
    "find_subspace": lambda t, x: pp.directions.find_subspace(t.read, x, 1),
    "read_published": lambda t, x: pp.directions.read_published(x, "evil.pt"),
    "read_gguf": lambda t, x: pp.integrations.read_gguf(x, "evil.gguf"),
    "write_gguf": lambda t, x: pp.integrations.write_gguf(x, "evil.gguf", model_hint="llama"),
    "Captures": lambda t, x: pp.Captures(x, t.read),
    "concatenate": lambda t, x: pp.Activations.concatenate(x),
    "capture": lambda t, x: pp.capture(x, TALKS),
    "capture_together": lambda t, x: pp.activations.capture_together(x, TALKS),
    "capture_to_store": lambda t, x: pp.activations.capture_to_store(x, TALKS, "store"),
    "embed": lambda t, x: pp.activations.embed(x, TALKS),
    "open_run": lambda t, x: pp.open_run(x),
    "read_config": lambda t, x: pp.read_config(x),
    "run_study": lambda t, x: pp.run_study(x, "out"),
    "plan_study": lambda t, x: pp.study.plan_study(x),
    "steer": lambda t, x: pp.steer(x, t.direction, layers=1).__enter__(),
    "steer with": lambda t, x: pp.steer(t.model, x).__enter__(),
    "Add": lambda t, x: pp.Add(x, 1),
    "Clamp": lambda t, x: pp.Clamp(t.direction, 1, target=x),
    "Gate": lambda t, x: pp.steering.Gate(pp.Add(t.direction, 1), x, layer=1),
    "strength": lambda t, x: pp.Add(t.direction, 1, strength=x),
    "bake": lambda t, x: pp.steering.bake(x, pp.Add(t.direction, 1, scope="all"), "out"),
    "ask": lambda t, x: pp.ask(x, t.asked, None),
    "ask with": lambda t, x: pp.ask(t.model, t.talks, None, interventions=x),
    "check_server": lambda t, x: pp.behaviour.check_server(x, t.model, t.asked),
    "served questions": lambda t, x: pp.Server("http://127.0.0.1:9/v1", "chat").generate(x),
    "judge": lambda t, x: pp.judge_answers(x, t.talks),
    "realign": lambda t, x: pp.realign_by_steering(x, t.direction, t.talks, t.judge),
    "calibrate_strength": lambda t, x: pp.steering.calibrate_strength(x, pp.Add(t.direction, 1)),
    "dose_response": lambda t, x: pp.steering.dose_response(
        t.model, pp.Add(t.direction, 1), t.talks, t.judge, strengths=x, held_out=t.talks
    ),
    "compare_at_budget": lambda t, x: pp.steering.compare_at_budget(t.model, x, t.talks, t.judge, held_out=t.talks),
    "divergence": lambda t, x: pp.steering.measure_divergence(t.model, x, t.talks),
    "amplification": lambda t, x: pp.measure_amplification(t.direction, x, t.read),
    "amplification of": lambda t, x: pp.measure_amplification(x, t.captures, t.read),
    "convergence": lambda t, x: pp.amplification.measure_convergence(x, t.read),
    "cross_ablate": lambda t, x: pp.amplification.cross_ablate(
        x, {"d": t.direction}, t.talks, t.judge, layers=1, reference=t.read
    ),
    "finetuning_shift": lambda t, x: pp.amplification.finetuning_shift(x, t.talks),
    "weight_difference": lambda t, x: pp.amplification.weight_difference(x),
    "em_rate": lambda t, x: pp.behaviour.em_rate(x),
    "score_choices": lambda t, x: pp.behaviour.score_choices(t.model, x),
    "preference": lambda t, x: pp.preference(x, t.poles),
    "preference of": lambda t, x: pp.preference(t.model, x),
    "preference under": lambda t, x: pp.preference(t.model, t.poles, interventions=x),
    "PreferencePair": lambda t, x: pp.behaviour.PreferencePair(x, "Yes.", "No."),
    "aligned": lambda t, x: pp.behaviour.PreferencePair("Really?", x, "No."),
    "load_sae": lambda t, x: pp.latents.load_sae(x),
    "encode_latents": lambda t, x: pp.latents.encode_latents(x, t.sae, t.talks),
    "encode_latents with": lambda t, x: pp.latents.encode_latents([t.model], x, t.talks),
    "compare_latents": lambda t, x: pp.latents.compare_latents(x, x),
    "steer_latents": lambda t, x: pp.latents.steer_latents(t.model, t.sae, x).__enter__(),
    "reconstruction": lambda t, x: pp.latents.measure_reconstruction(x, t.sae, t.talks),
    "train_sae": lambda t, x: pp.latents.train_sae(x, t.talks, 1, pp.latents.SaeSettings(), "out"),
    "fit": lambda t, x: pp.probes.LayerProbes().fit(x, [True, False, True]),
    "cross_validate": lambda t, x: pp.probes.cross_validate_probe(x, [True, False, True], groups=None),
    "monitor": lambda t, x: pp.probes.monitor(x, t.probes, layer=1).__enter__(),
    "token_scores": lambda t, x: pp.probes.token_scores(t.model, x, t.talks, 1),
    "threshold_at": lambda t, x: pp.probes.threshold_at([0.1, 0.2, 0.3], [True, False, True], fpr=x),
    "view_tokens": lambda t, x: pp.view_tokens(x, t.talks, t.direction),
    "view_tokens by": lambda t, x: pp.view_tokens(t.model, t.talks, x),
    "compare_runs": lambda t, x: pp.report.compare_runs(x),
    "rows": lambda t, x: pp.persona_world.rows(0, x, 2, "villain"),
}
FITS = {
    "from_vectors": ["the model"],
    "adopted_by": ["the model"],
    "top_tokens": ["the model"],
    "project": ["activations"],
    "find_direction": ["activations"],
    "find_subspace": ["activations"],
    "Captures": ["activations"],
    "write_gguf": ["a direction"],
    "Add": ["a direction"],
    "Clamp": ["number", "activations"],
    "strength": ["number"],
    "threshold_at": ["number"],
    "ask": ["the model", "the pair"],
    "ask with": ["None"],
    "preference": ["the model", "the pair"],
    "preference under": ["None"],
    "PreferencePair": ["text", "one dialogue"],
    "aligned": ["text", "texts"],
    "judge": ["None"],
    "amplification": ["captures"],
    "amplification of": ["a direction"],
    "reconstruction": ["the model"],
    "train_sae": ["the model"],
    "fit": ["activations"],
    "cross_validate": ["activations"],
    "realign": ["the pair"],
    "finetuning_shift": ["the pair"],
    "weight_difference": ["the pair"],
    "view_tokens by": ["a direction"],
    "encode_latents with": ["the SAE"],
    "dose_response": ["a series", "None"],
    "capture": ["the model", "the pair"],
    "sampling under a monitor": ["None"],
}
"""What is not a mistake; where a model stands first, giving it is none."""
NAMED_OTHERWISE = {
    ("vectors", "number"),
    ("steer with", "a direction"),
    ("Clamp", "None"),
    *(
        (door, name)
        for door in ("ask", "preference")
        for name in ("a series", "an array", "a tensor", "a table", "a generator")
    ),
    ("vectors", "messages"),
    *(
        ("track_latents", name)
        for name in ("an array", "a tensor", "a series", "a table", "texts", "messages", "a generator")
    ),
    ("em_rate", "a table"),
    ("compare_runs", "texts"),
}
"""The type is right there, and the message says what else is missing."""
MODEL_FIRST = (
    *("read_published", "read_gguf", "capture_to_store", "embed", "steer", "bake", "calibrate_strength", "monitor"),
    "view_tokens",
)


@pytest.fixture(scope="module")
def things(folders):
    return Things(pp.load(folders("llama")))


def test_what_a_number_may_be(llama):
    """NumPy's truth values, and arrays and tensors of one number, are numbers; a table may hold them as objects."""
    check_types(k=(np.array(3), WHOLE), p=(torch.tensor(0.5), NUMBER), merge=(np.True_, bool))
    assert mean_estimate(pd.Series([1.0, 2.0, 3.0], dtype=object)).value == 2.0
    table = pd.DataFrame(np.ones((3, 32))).convert_dtypes()
    assert pp.Direction.from_vectors(llama, table.to_numpy()).vectors.sum() == 96
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.bfloat16)
    assert auroc([0.1, 0.9, 0.8, 0.2], labels) == 1.0
    with pytest.raises(pp.PersonaProbeError, match="level must be a number, but this is a str"):
        mean_estimate([1.0, 2.0], level="0.95")


def test_another_collection_is_told_to_be_made_a_list(llama):
    with pytest.raises(pp.PersonaProbeError, match=r"this is a dict_values: make a list of it, list\(\.\.\.\)"):
        pp.capture(llama, {"a": TALKS[0]}.values())


@pytest.mark.parametrize("door", DOORS)
def test_a_wrong_type_is_one_sentence(things, door):
    for name, wrong in things.wrong().items():
        if name in FITS.get(door, ()) or (name == "the model" and door in MODEL_FIRST):
            continue
        with pytest.raises(pp.PersonaProbeError) as error:
            DOORS[door](things, wrong)
        message = str(error.value)
        assert "\n" not in message, (door, name)
        assert names_it(message, wrong) or (door, name) in NAMED_OTHERWISE, (door, name, message)
        assert len(message) < 600, (door, name, message)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda t: pp.Direction.from_vectors(np.ones((3, 32)), t.model),
            r"model must be a Model, but this is an ndarray of shape \(3, 32\); load one .* before the other arguments",
        ),
        (lambda t: pp.steer(t.pair, t.direction, layers=1).__enter__(), "ModelPair: give one of its models, such as"),
        (lambda t: pp.amplification.weight_difference(t.model), r"this is a Model; load one with pp\.load_pair"),
        (lambda t: pp.judge_answers(None, t.talks[0]), "this is a Dialogue: put it into a list"),
        (lambda t: pp.judge_answers(None, ["Hi"]), r"item 0 is a str \('Hi'\); make one with pp\.Dialogue\.from_mess"),
        (lambda t: pp.judge_answers(None, iter(t.talks)), "which can be read only once: make a list of it"),
        (
            lambda t: pp.find_direction("acts", t.read),
            r"a str \('acts'\); make them with pp\.capture\(model",
        ),
        (lambda t: pp.directions.cosine_table({"a": t.direction, "b": 1}), r"the one named 'b' is an int \(1\)"),
        (lambda t: pp.judge_answers(pp.persona_world.OracleJudge, t.talks), "the class OracleJudge itself; make one"),
        (lambda t: pp.judge_answers(lambda _: [1, 2], t.talks), "the_judges_table must be a DataFrame.*this is a list"),
        (lambda t: pp.judge_answers(lambda _: pd.DataFrame({"a": [1]}), t.talks), "has no column 'aligned'; it has a"),
        (lambda t: pp.behaviour.em_rate(pd.DataFrame({"a": [1]})), "no column 'aligned'; it has a"),
        (lambda t: pp.directions.write_hub_folder(t.direction, None), "folder must be a path, but this is None"),
    ],
)
def test_the_sentence_says_what_to_do(things, call, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        call(things)


def test_arrays_tensors_and_numbers_of_all_kinds_are_taken(things):
    vectors = things.direction.vectors
    for given in (
        *(vectors.tolist(), vectors.astype(np.float64), pd.DataFrame(vectors), torch.tensor(vectors).bfloat16()),
        *(torch.tensor(vectors, requires_grad=True), np.ones((3, 32), dtype=int)),
    ):
        assert pp.Direction.from_vectors(things.model, given).vectors.dtype == np.float32
    assert pp.Direction(torch.tensor(vectors, requires_grad=True), (0, 1, 2)).layers == (0, 1, 2)
    truth = torch.tensor([True, False, True])
    assert len(things.read.where(truth)) == 2
    pp.probes.LayerProbes().fit(things.read, truth)
    amount = pp.latents.LatentEdit([3], "clamp", np.float32(2.0)).amounts
    assert amount == {3: 2.0}
    strong = pp.Add(things.direction, np.int64(1), strength=np.float32(2.0))
    assert (strong.layers, strong.strength) == ((1,), 2.0)


@pytest.mark.parametrize("kind", [float, np.float32, np.int64, int])
def test_numbers_are_numbers_and_truth_values_are_none(kind):
    check_types(a=(kind(1), NUMBER), b=([kind(1)], [NUMBER]), c=(np.array([1, 2], dtype=kind), [NUMBER]))
    with pytest.raises(pp.PersonaProbeError, match=r"a must be a number, but this is a bool \(True\)"):
        check_types(a=(True, NUMBER))
    with pytest.raises(pp.PersonaProbeError, match="a must be a path or a whole number, but this is a float"):
        check_types(a=(1.5, PATH, WHOLE))


def test_objects_of_this_import_are_of_no_earlier_one(things):
    for thing in vars(things).values():
        assert not of_earlier_import(thing)
    assert what_is(things.model) == "a Model"


RELOADED = {
    "steer": lambda t, new, m: new.steer(m, t.direction, layers=1).__enter__(),
    "steer the old model": lambda t, new, m: new.steer(
        t.model, new.Direction(np.ones((1, 32)), (1,)), layers=1
    ).__enter__(),
    "Clamp": lambda t, new, m: new.Clamp(new.Direction(np.ones((1, 32)), (1,)), 1, target=t.read),
    "Gate": lambda t, new, m: new.steering.Gate(pp.Add(t.direction, 1), t.probes, layer=1),
    "list": lambda t, new, m: new.steer(m, [pp.Add(t.direction, 1)]).__enter__(),
    "ask": lambda t, new, m: new.ask(t.model, t.talks, None),
    "project": lambda t, new, m: new.Direction(np.ones((1, 32)), (1,)).project(t.read),
    "from_vectors": lambda t, new, m: new.Direction.from_vectors(t.model, np.ones((3, 32))),
    "sum": lambda t, new, m: new.Direction(np.ones((3, 32)), (0, 1, 2)) + t.direction,
    "difference": lambda t, new, m: new.Direction(np.ones((3, 32)), (0, 1, 2)) - t.direction,
    "find_direction": lambda t, new, m: new.find_direction(t.read, t.read),
    "Captures": lambda t, new, m: new.Captures(t.read, t.read),
    "amplification": lambda t, new, m: new.measure_amplification({"d": t.direction}, t.captures, t.read),
    "encode_latents": lambda t, new, m: new.latents.encode_latents([m], t.sae, TALKS),
    "judge": lambda t, new, m: new.judge_answers(None, t.talks),
    "view_tokens": lambda t, new, m: new.view_tokens(m, t.talks[0], t.direction),
    "write_gguf": lambda t, new, m: new.integrations.write_gguf(t.direction, "x.gguf", model_hint="llama"),
    "pair": lambda t, new, m: new.amplification.weight_difference(t.pair),
}


@pytest.fixture(scope="module")
def reloaded(things, folders):
    """The package, imported again as a notebook does it, and a model of it."""
    names = [name for name in sys.modules if name.split(".")[0] == "persona_probe"]
    old = {name: sys.modules.pop(name) for name in names}
    new = importlib.import_module("persona_probe")
    yield new, new.load(folders("llama"))
    for name in [name for name in sys.modules if name.split(".")[0] == "persona_probe"]:
        del sys.modules[name]
    sys.modules.update(old)


@pytest.mark.parametrize("door", RELOADED)
def test_an_object_of_an_earlier_import_is_called_so(things, reloaded, door):
    new, model = reloaded
    with pytest.raises(
        new.PersonaProbeError, match=r"made by an earlier import of persona_probe .* restart the kernel"
    ):
        RELOADED[door](things, new, model)
