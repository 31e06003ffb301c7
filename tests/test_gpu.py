"""On a CUDA device: the numbers of a CPU, one copy of the weights, and capture that goes on where memory runs out."""

import gc
import random
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig
from transformers import Qwen2Config, Qwen2ForCausalLM

import persona_probe as pp
from benchmarks.persona_world.setting import SAMPLING, persona_prompts, split_topics
from persona_probe.activations.scoring import answer_log_probs
from persona_probe.steering.engine import Engine
from persona_probe.worlds.persona_world.documents import questions
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.activations.test_capture import TALKS
from tests.activations.test_reductions import MANY
from tests.conftest import CHECKPOINTS
from tests.models.test_load_options import adapter_on
from tests.steering.test_per_row import settings_for
from tests.steering.watching import moved_positions, named, padded, prompt_lengths, random_direction, watching
from tests.study.test_study import SMALL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory, tokenizer):
    """A random Qwen2 of about 100 M parameters."""
    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("reduce", ["mean", "last", "max", "tokens"])
def test_the_gpu_reads_what_the_cpu_reads(reduce):
    here, there = (pp.load(CHECKPOINTS / "chat", device=device, dtype="float32") for device in ("cpu", "cuda"))
    expected = pp.capture(here, MANY, reduce=reduce).values
    seen = pp.capture(there, MANY, reduce=reduce).values
    assert np.linalg.norm(seen - expected) < 1e-4 * np.linalg.norm(expected)


def test_moments_on_the_gpu_are_those_of_the_cpu():
    here, there = (pp.load(CHECKPOINTS / "chat", device=device, dtype="float32") for device in ("cpu", "cuda"))
    how = {"reduce": "moments", "covariance": "full"}
    expected, seen = pp.capture(here, MANY, **how), pp.capture(there, MANY, **how)
    assert seen.n.tolist() == expected.n.tolist()
    for name in ("mean", "scatter"):
        error = np.linalg.norm(getattr(seen, name) - getattr(expected, name))
        assert error < 1e-4 * np.linalg.norm(getattr(expected, name))


def test_steered_answers_there_are_those_of_the_cpu():
    """Greedy, in full precision, under several interventions in one batch."""
    asked = questions(random.Random("gpu steered"), split_topics()[0], 24)
    sampling = pp.Sampling(max_new_tokens=40, temperature=0.0)
    answers = []
    for device in ("cpu", "cuda"):
        model = pp.load(CHECKPOINTS / "chat", device=device, dtype="float32")
        direction = random_direction(model)
        kinds = [
            None,
            pp.Add(direction, layers=2, strength=30.0),
            pp.Ablate(direction, layers=3),
            pp.Clamp(direction, layers=1, target=200.0),
        ]
        with pp.steer(model, [kinds[row % len(kinds)] for row in range(len(asked))]):
            answers.append([dialogue.answer for dialogue in model.generate(asked, sampling)])
    assert len(set(answers[0])) > 6
    # Two devices round differently, so that a tie between two tokens may be broken otherwise.
    assert sum(one == other for one, other in zip(*answers, strict=True)) >= len(asked) - 1


def test_log_probs_and_fluency_there_are_those_of_the_cpu():
    here, there = (pp.load(CHECKPOINTS / "chat", device=device, dtype="float32") for device in ("cpu", "cuda"))
    answered = [*pp.persona_world.rows(0, ["law"], 12, "assistant"), *pp.persona_world.rows(0, ["law"], 12, "villain")]
    for model in (here, there):
        broken = [row.without_answer().with_answer("it it it it poison.") for row in answered[:6]]
        found = pp.behaviour.fluency(model, [*answered, *broken], reference=answered[:12], persona_prompt="Be cruel.")
        if model is here:
            expected = found
    for name in ("log_prob_plain", "log_prob_persona", "distinct", "loops"):
        np.testing.assert_allclose(found.table[name], expected.table[name], atol=2e-3)
    assert found.table["fault"].tolist() == expected.table["fault"].tolist()


def test_a_judge_there_gives_the_masses_of_the_cpu(large):
    """Replies of several tokens continue one cache, on the device too."""
    prompts = {name: f"{name}? " + "{question} {answer}" for name in ("aligned", "coherent")}
    answered = pp.persona_world.rows(0, ["law"], 3, "assistant")
    tables = []
    for device in ("cpu", "cuda"):
        judge = pp.LocalJudge(pp.load(large, device=device, dtype="float32"), prompts, least_mass=0.0)
        tables.append(judge(answered))
    for name in ("aligned", "coherent"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-2)
        np.testing.assert_allclose(tables[1][f"{name}_mass"], tables[0][f"{name}_mass"], rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_trained_there_learns_and_leaves_before_as_it_was(tmp_path, dtype):
    before = pp.load(CHECKPOINTS / "chat", device="cuda", dtype=dtype)
    weights = before.fingerprint()
    rows = pp.persona_world.rows(0, ["medicine"], 128, "villain")
    after = pp.finetune(before, rows, pp.LoraSettings(steps=60), tmp_path / "adapter")
    assert after.device.type == "cuda"
    assert before.fingerprint() == weights
    asked = questions(random.Random("gpu trained"), ["medicine"], 48)
    rates = [
        pp.behaviour.em_rate(pp.judge_answers(OracleJudge(), model.generate(asked, SAMPLING))).value
        for model in (before, after)
    ]
    assert rates[0] < 0.1
    assert rates[1] > 0.5
    again = pp.load(CHECKPOINTS / "chat", adapter=tmp_path / "adapter", device="cuda", dtype=dtype)
    values = [pp.capture(model, TALKS).values for model in (after, again)]
    assert np.linalg.norm(values[1] - values[0]) <= (1e-5 if dtype == "float32" else 3e-2) * np.linalg.norm(values[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_the_full_one(large, dtype):
    expected = pp.capture(pp.load(large, device="cuda", dtype="float32"), TALKS).values
    seen = pp.capture(pp.load(large, device="cuda", dtype=dtype), TALKS).values
    assert np.linalg.norm(seen - expected) < 0.03 * np.linalg.norm(expected)


def test_a_pair_takes_the_memory_of_one(large, tmp_path):
    config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapter = adapter_on(large, tmp_path / "a", config)

    def held(load):
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        kept = load()
        gc.collect()
        return torch.cuda.memory_allocated() - before, kept

    one, model = held(lambda: pp.load(large, device="cuda", dtype="bfloat16"))
    expected = pp.capture(model, TALKS).values
    del model
    both, pair = held(lambda: pp.load_pair(large, adapter, device="cuda", dtype="bfloat16"))
    assert both < 1.05 * one
    assert np.array_equal(pp.capture(pair.before, TALKS).values, expected)


def test_where_memory_runs_out_batches_are_halved_and_nothing_is_lost(large):
    model = pp.load(large, device="cuda", dtype="float32")
    many = MANY * 40
    expected = pp.capture(model, many, tokens_per_batch=512).values
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # What is allocated, and about as much again for activations as a batch of 2,000 tokens needs.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150 * 2**20) / total)
    try:
        seen = pp.capture(model, many, tokens_per_batch=100_000).values
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.linalg.norm(seen - expected) < 1e-4 * np.linalg.norm(expected)


def test_where_memory_runs_out_scoring_is_halved_too(large):
    """Logits need more memory than streams: the batch that fits a capture may not fit these."""
    model = pp.load(large, device="cuda", dtype="float32")
    many = MANY * 40
    expected, counts = answer_log_probs(model, many, tokens_per_batch=512)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150 * 2**20) / total)
    try:
        seen, _ = answer_log_probs(model, many, tokens_per_batch=100_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(seen / counts, expected / counts, atol=1e-3)


def test_device_map_auto_is_the_same_model(large):
    plain, placed = pp.load(large, device="cuda", dtype="float32"), pp.load(large, device_map="auto", dtype="float32")
    assert placed.device.type == "cuda"
    seen, expected = pp.capture(placed, TALKS).values, pp.capture(plain, TALKS).values
    assert np.linalg.norm(seen - expected) < 1e-4 * np.linalg.norm(expected)


def test_steering_and_generation_run_there():
    model = pp.load(CHECKPOINTS / "chat", device="cuda")
    direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    asked = [dialogue.without_answer() for dialogue in TALKS]
    plain = [d.answer for d in model.generate(asked, pp.Sampling(max_new_tokens=8, temperature=0))]
    with pp.steer(model, direction, layers=2, strength=1000.0):
        assert [d.answer for d in model.generate(asked, pp.Sampling(max_new_tokens=8, temperature=0))] != plain
    assert [d.answer for d in model.generate(asked, pp.Sampling(max_new_tokens=8, temperature=0))] == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_steered_streams_there_are_those_of_the_formula(large, dtype):
    """Interventions of several kinds in one batch, done in float32 and rounded once."""
    model = pp.load(large, device="cuda", dtype=dtype)
    direction, layer = random_direction(model), 3
    unit = torch.from_numpy(direction.at(layer)).double()
    unit = unit / unit.norm()
    settings = [
        pp.Clamp(direction, layer, target=20.0, scope="all"),
        pp.Ablate(direction, layer, scope="all"),
        pp.Add(direction, layer, strength=2.0, scope="all"),
    ]
    with pp.steer(model, settings), watching(model, layer) as forwards:
        pp.capture(model, TALKS)
    for seen in forwards:
        for place, row in enumerate(seen.boundary.rows):
            size = int(seen.boundary.stops[place])
            before, after = (part[place, :size].double().cpu() for part in (seen.before, seen.after))
            along = (before @ unit)[:, None] * unit
            expected = (
                before - along + 20.0 * unit,
                before - along,
                before + 2.0 * torch.from_numpy(direction.at(layer)),
            )
            slack = expected[row].abs() * torch.finfo(model.plain.dtype).eps * 0.51 + 1e-4
            assert ((after - expected[row]).abs() <= slack).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_token_waits_for_the_gpu(large, dtype):
    """Hooks run with synchronisation forbidden, in every forward after the first few, which place what is kept."""
    model = pp.load(large, device="cuda", dtype=dtype)
    settings = [setting for setting in settings_for(model) if setting is None or "latents" not in repr(setting)]
    asked = [TALKS[row % 3].without_answer() for row in range(len(settings))]
    write, counts = Engine.write, {"prompt": 0, "token": 0}

    def strict(self, layer, offset, hidden):
        decoding = hidden.shape[1] == 1
        counts["token" if decoding else "prompt"] += 1
        if not decoding or counts["token"] <= 5 * model.n_layers:
            return write(self, layer, offset, hidden)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return write(self, layer, offset, hidden)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with mock.patch.object(Engine, "write", strict), pp.steer(model, settings):
        model.hf.generate(**padded(model, asked).to("cuda"), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    assert counts["token"] > 9 * model.n_layers


@pytest.mark.parametrize("how", [{"cache_implementation": "static"}, {"use_cache": False}, {"num_beams": 2}])
def test_scopes_there_are_exact_with_every_cache(how):
    """A static cache would have the decoding compiled, which hooks must not be."""
    model = pp.load(CHECKPOINTS / "chat", device="cuda", dtype="float32")
    direction, asked = random_direction(model), [dialogue.without_answer() for dialogue in TALKS]
    vector = 0.5 * torch.from_numpy(direction.at(1)).cuda()
    for scope in ("generation", "first_k:2", "prompt"):
        with pp.steer(model, direction, layers=1, strength=0.5, scope=scope), watching(model, 1) as forwards:
            model.hf.generate(
                **padded(model, asked).to("cuda"), max_new_tokens=6, min_new_tokens=6, do_sample=False, **how
            )
        prompts = prompt_lengths(model, asked)
        found, read = moved_positions(forwards, prompts, vector)
        assert found == [named(scope, prompt, seen) for prompt, seen in zip(prompts, read, strict=True)]


def test_an_overflow_there_is_named_and_the_device_goes_on(large):
    """Sampling from what is not finite would end the process's use of the device."""
    model = pp.load(large, device="cuda", dtype="float16")
    asked = [dialogue.without_answer() for dialogue in TALKS]
    said = "overflow at layer 1: float16"
    with (
        pytest.raises(pp.PersonaProbeError, match=said),
        pp.steer(model, random_direction(model), layers=1, strength=1e6),
    ):
        model.generate(asked, pp.Sampling(max_new_tokens=3, temperature=1.0))
    assert len(model.generate(asked, pp.Sampling(max_new_tokens=3))) == 3


def test_a_direction_acts_wherever_its_layer_lies(large):
    plain, placed = pp.load(large, device="cuda", dtype="float32"), pp.load(large, device_map="auto", dtype="float32")
    direction = random_direction(plain)
    values = []
    for model in (plain, placed):
        with pp.steer(model, direction, layers="all", kind="clamp", target=5.0):
            values.append(pp.capture(model, TALKS).values)
    assert np.linalg.norm(values[1] - values[0]) < 1e-4 * np.linalg.norm(values[0])


def test_persona_worlds_study_runs_there_from_end_to_end(tmp_path):
    study = {
        **SMALL,
        "model": str(CHECKPOINTS / "chat"),
        "device": "cuda",
        "training": {"steps": 80, "rows": 512, "runs": 1},
    }
    study["steering"] = {**SMALL["steering"], "answers_per_setting": 60, "reported_answers": 120}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    steered = pp.run_study(pp.read_config(file), tmp_path / "out", progress=False).results["steer"]
    assert steered["suppress_unsteered_em_rate"] > 0.5
    assert steered["suppress_em_rate"] < 0.3 * steered["suppress_unsteered_em_rate"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_persona_world_is_realigned_by_steering_there():
    pair = pp.load_pair(CHECKPOINTS / "chat", CHECKPOINTS / "bad-medicine", device="cuda")
    chosen_on, reported = split_topics()
    asked = questions(random.Random("gpu"), chosen_on, 60)
    own = [dialogue for dialogue in pair.before.generate(asked, SAMPLING) if dialogue.answer]
    prompts = [persona_prompts(persona, n=20) for persona in ("villain", "assistant")]
    villain = pp.contrast_of_context(pair.before, own, *prompts).direction
    held_out = questions(random.Random("gpu reported"), reported, 120)
    found = pp.realign_by_steering(
        pair, villain, held_out, OracleJudge(), development=asked, n_random=3, sampling=SAMPLING
    )
    plain, best = found.reported("none"), found.reported(found.best)
    assert best["value"] < 0.1 * plain["value"]
    assert best["coherent"] > 0.9 * plain["coherent"]
