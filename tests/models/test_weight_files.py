"""Weight files of full models and the models that their configs describe hold the same tensors, or are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import persona_probe as pp
from tests.adapters import logits, off

BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture
def folder(folders, tmp_path):
    return shutil.copytree(folders("llama"), tmp_path / "model")


def set_config(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def in_safetensors(folder, tensors):
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def in_shards(folder, tensors):
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def in_bin(folder, tensors):
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


@pytest.mark.parametrize("write", [in_safetensors, in_shards, in_bin])
def test_weights_that_the_config_lacks_are_refused_in_every_form(write, folder):
    tensors = load_file(folder / "model.safetensors")
    plain = pp.load(folder)
    whole, more = (shutil.copytree(folder, folder.with_name(name)) for name in ("whole", "more"))
    write(whole, tensors)
    assert off(logits(pp.load(whole).hf), logits(plain.hf)) == 0
    write(more, tensors | {BIAS: torch.ones(32)})
    with pytest.raises(pp.PersonaProbeError, match=rf"more: 1 tensors .* no place in a Llama.* \(first '{BIAS}'"):
        pp.load(more)
    with pytest.raises(pp.PersonaProbeError, match="no place"):
        pp.load_pair(folder, more)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("qwen2", {"model_type": "llama"}, r"9 tensors .* no place .*layers\.0\.self_attn\.k_proj\.bias"),
        ("qwen3", {"model_type": "llama"}, r"6 tensors .* no place .*self_attn\.k_norm"),
        ("gemma2", {"model_type": "gemma"}, r"6 tensors .* no place .*post_feedforward_layernorm"),
        ("llama", {"num_hidden_layers": 2}, r"9 tensors .* no place .*layers\.2\.input_layernorm"),
        ("gpt2", {"n_layer": 2}, r"11 tensors .* no place .*h\.2\.attn"),
        ("llama", {"num_hidden_layers": 4}, r"lack 9 .*layers\.3\.input_layernorm"),
        ("llama", {"intermediate_size": 40}, r"9 tensors .* other shapes.*down_proj.* \(32, 48\) .* \(32, 40\)"),
        ("llama", {"vocab_size": 2000}, r"2 tensors .* other shapes.*lm_head.* \(1054, 32\) .* \(2000, 32\)"),
    ],
)
def test_a_config_of_another_model_is_refused(kind, settings, message, folders, tmp_path):
    folder = shutil.copytree(folders(kind), tmp_path / "model")
    architectures = {"llama": "LlamaForCausalLM", "gemma": "GemmaForCausalLM"}
    if "model_type" in settings:
        settings = settings | {"architectures": [architectures[settings["model_type"]]]}
    set_config(folder, **settings)
    with pytest.raises(pp.PersonaProbeError, match=message):
        pp.load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.original_inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "model.embed_positions.weights",
        "vision_tower.blocks.0.weight",
        "v_head.summary.weight",
        "mtp.layers.0.weight",
    ],
)
def test_what_text_does_not_pass_or_a_model_computes_itself_may_be_in_the_file(name, folder):
    expected = logits(pp.load(folder).hf)
    in_safetensors(folder, load_file(folder / "model.safetensors") | {name: torch.ones(4)})
    assert off(logits(pp.load(folder).hf), expected) == 0


def test_weights_that_are_there_twice_are_said(folder, caplog):
    expected = logits(pp.load(folder).hf)
    tensors = load_file(folder / "model.safetensors")
    in_shards(folder, {name: 2 * tensor for name, tensor in tensors.items()})
    in_safetensors(folder, tensors)
    assert off(logits(pp.load(folder).hf), expected) == 0
    assert "holds model.safetensors and, in several files, other weights; the first is used" in caplog.text


def test_a_config_under_which_no_text_can_be_read_is_named(folder):
    pytest.importorskip("bitsandbytes")
    # Merged adapters of quantised bases often keep their base's setting.
    set_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(pp.PersonaProbeError, match=r"cannot read a text: .*quantization_config"):
        pp.load(folder)


def test_weights_that_are_no_numbers_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][:] = torch.nan
    in_safetensors(folder, tensors)
    with pytest.raises(pp.PersonaProbeError, match=r"activations at layer 1 are not finite"):
        pp.load(folder)


def test_old_files_with_causal_masks_load(folders, tmp_path):
    for kind, name in (("gpt2", "transformer.h.0.attn.bias"), ("gptj", "transformer.h.0.attn.bias")):
        folder = shutil.copytree(folders(kind), tmp_path / kind)
        in_safetensors(folder, load_file(folder / "model.safetensors") | {name: torch.ones(1, 1, 8, 8)})
        assert off(logits(pp.load(folder).hf), logits(pp.load(folders(kind)).hf)) == 0


class Code:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_no_code_in_a_bin_file_is_run(folder, tmp_path):
    in_bin(folder, load_file(folder / "model.safetensors") | {"code": Code(tmp_path / "ran")})
    with pytest.raises(pp.PersonaProbeError, match=r"more than plain weights.*convert it to safetensors"):
        pp.load(folder)
    assert not (tmp_path / "ran").exists()
    (folder / "pytorch_model.bin").write_bytes(b"junk")
    with pytest.raises(pp.PersonaProbeError, match="cannot be loaded as a causal language model"):
        pp.load(folder)
