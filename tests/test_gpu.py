"""On a CUDA device: the numbers of a CPU, one copy of the weights, and capture that goes on where memory runs out."""

import gc

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Qwen2Config, Qwen2ForCausalLM

import persona_probe as pp
from tests.activations.test_capture import TALKS
from tests.activations.test_reductions import MANY
from tests.conftest import CHECKPOINTS
from tests.models.test_load_options import adapter_on

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

    one, model = held(lambda: pp.load(large, device="cuda"))
    del model
    both, _pair = held(lambda: pp.load_pair(large, adapter, device="cuda"))
    assert both < 1.05 * one


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


def test_device_map_auto_is_the_same_model(large):
    plain, placed = pp.load(large, device="cuda", dtype="float32"), pp.load(large, device_map="auto", dtype="float32")
    assert placed.device.type == "cuda"
    seen, expected = pp.capture(placed, TALKS).values, pp.capture(plain, TALKS).values
    assert np.linalg.norm(seen - expected) < 1e-4 * np.linalg.norm(expected)


def test_steering_and_generation_run_there():
    model = pp.load(CHECKPOINTS / "chat", device="cuda")
    direction = pp.Direction.from_vectors(np.ones((model.n_layers, model.d_model)), model)
    asked = [dialogue.without_answer() for dialogue in TALKS]
    plain = [d.answer for d in model.generate(asked, max_new_tokens=8, temperature=0)]
    with pp.steer(model, direction, layers=2, strength=1000.0):
        assert [d.answer for d in model.generate(asked, max_new_tokens=8, temperature=0)] != plain
    assert [d.answer for d in model.generate(asked, max_new_tokens=8, temperature=0)] == plain
