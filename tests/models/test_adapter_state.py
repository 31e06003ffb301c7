"""What is in an adapter's file is in use after loading, and nothing of it is in the model before."""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LNTuningConfig, LoHaConfig, OFTConfig, VeraConfig
from safetensors.torch import load_file

import persona_probe as pp
from persona_probe.models.loading import adapter_state
from tests.adapters import WEIGHTS, logits, lora, off, rewrite, tied_llama, trained


def set_config(adapter, **settings):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def scaled(hf):
    hf.get_input_embeddings().weight.data.mul_(1.5)


CARRIED = {
    "embeddings": (lora(), {"before": scaled, "save_embedding_layers": True}),
    "biases": (lora(bias="all"), {}),
    "biases of LoRA's modules": (lora(bias="lora_only"), {}),
    "norms": (lora(target_modules=r".*\.(o_proj|c_proj|attention\.dense)", modules_to_save=["norm", "ln_f"]), {}),
}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("carried", CARRIED)
def test_what_an_adapter_carries_of_the_base_is_in_after_and_not_in_before(kind, carried, folders, tmp_path):
    config, how = CARRIED[carried]
    adapter, expected = trained(folders(kind), tmp_path / "a", config, **how)
    before = pp.load(folders(kind))
    untouched, code = logits(before.hf), before.fingerprint()
    after = pp.with_adapter(before, adapter)
    assert off(logits(after.hf), expected) < 1e-5
    assert off(logits(before.hf), untouched) == 0
    assert before.fingerprint() == code
    assert off(logits(pp.load(folders(kind), adapter=adapter).hf), expected) < 1e-5


@pytest.fixture
def tied(folders, tmp_path):
    return tied_llama(folders("llama"), tmp_path / "tied")


def test_a_tied_head_stays_that_of_before_whatever_the_file_holds(tied, tmp_path):
    adapter, expected = trained(tied, tmp_path / "a", lora(), scaled, save_embedding_layers=True)
    pair = pp.load_pair(tied, adapter)
    assert off(logits(pair.after.hf), expected) < 1e-5
    assert off(logits(pair.before.hf), logits(pp.load(tied).hf)) == 0
    # Two different matrices in the file, for one in the base.
    head = "base_model.model.lm_head.weight"
    rewrite(adapter, lambda tensors: tensors | {head: 2 * tensors[head]})
    after = pp.with_adapter(pair.before, adapter)
    assert off(logits(after.hf), 2 * expected) < 1e-4
    assert not after.plain.config.tie_word_embeddings
    assert pair.before.plain.config.tie_word_embeddings


def test_an_adapter_that_rewrites_before_in_another_way_is_refused(folders, tmp_path, monkeypatch):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora(), scaled, save_embedding_layers=True)
    monkeypatch.setattr(adapter_state, "own_tensors", lambda *_, **__: None)
    with pytest.raises(
        pp.PersonaProbeError, match=r"by rewriting weights of .*llama, which is therefore not the model"
    ):
        pp.load_pair(folders("llama"), adapter)


@pytest.mark.parametrize("targets", [["q_proj"], r".*\.layers\.[01]\.self_attn\.(q|v)_proj", "nothing"])
def test_weights_that_the_config_does_not_cover_are_named(targets, folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora(target_modules=["q_proj", "v_proj"]))
    set_config(adapter, target_modules=targets)
    named = "not found in the base" if targets == "nothing" else r"self_attn\.v_proj'.*target_modules"
    for load in (lambda: pp.load(folders("llama"), adapter=adapter), lambda: pp.load_pair(folders("llama"), adapter)):
        with pytest.raises(pp.PersonaProbeError, match=named):
            load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers_to_transform": [0]}, r"8 of 12 tensors .* no place .*layers\.1\.self_attn\.q_proj"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, r"lacks 6 tensors .*layers\.0\.self_attn\.o_proj"),
        ({"use_dora": True}, r"lacks 6 tensors .*layers\.0\.self_attn\.q_proj"),
        ({"r": 2}, r"Error\(s\) in loading state_dict .*: size mismatch for .*q_proj.*\[4, 32\].*\[2, 32\]"),
        ({"modules_to_save": ["lm_head"]}, r"lacks 'base_model\.model\.lm_head\.weight', which its config names"),
    ],
)
def test_a_config_that_does_not_fit_its_weight_file_is_refused(change, message, folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora(target_modules=["q_proj", "v_proj"]))
    set_config(adapter, **change)
    with pytest.raises(pp.PersonaProbeError, match=message):
        pp.load(folders("llama"), adapter=adapter)


OTHER = {
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "loha": LoHaConfig(target_modules=["q_proj", "v_proj"]),
    "vera": VeraConfig(target_modules=["q_proj"], r=8),
    "oft": OFTConfig(target_modules=["q_proj"], oft_block_size=8),
    "norms": LNTuningConfig(target_modules=["norm", "input_layernorm"]),
    "patterns": lora(rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 3}),
    "parameters": lora(target_modules=[], target_parameters=["q_proj.weight"]),
    "tokens": lora(target_modules=["q_proj"], trainable_token_indices=[20, 21, 22]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OTHER)
def test_other_kinds_are_loaded_whole(name, folders, tmp_path):
    config = OTHER[name]
    config.task_type = "CAUSAL_LM"
    adapter, expected = trained(folders("llama"), tmp_path / "a", config)
    pair = pp.load_pair(folders("llama"), adapter)
    assert off(logits(pair.before.hf), expected) > 1e-3
    assert off(logits(pair.after.hf), expected) < 1e-5
    assert off(logits(pp.load(folders("llama"), adapter=adapter, merge=True).hf), expected) < 1e-4


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v2"])
def test_adapters_of_experts_are_loaded_whole(kind, folders, tmp_path):
    adapter, expected = trained(folders(kind), tmp_path / "a", lora(target_parameters=["mlp.experts.down_proj"]))
    assert off(logits(pp.load_pair(folders(kind), adapter).after.hf), expected) < 1e-5


class Code:
    """What a pickle can hold besides weights."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (type(self.file).touch, (self.file,))


def as_bin(adapter, more):
    torch.save({**load_file(adapter / WEIGHTS), **more}, adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    return adapter


def test_a_bin_file_is_read_and_no_code_in_it_is_run(folders, tmp_path):
    adapter, expected = trained(folders("llama"), tmp_path / "a", lora())
    unsafe, nested = (shutil.copytree(adapter, tmp_path / name) for name in ("unsafe", "nested"))
    as_bin(adapter, {})
    assert off(logits(pp.load_pair(folders("llama"), adapter).after.hf), expected) < 1e-5
    as_bin(unsafe, {"code": Code(tmp_path / "ran")})
    with pytest.raises(pp.PersonaProbeError, match=r"adapter_model\.bin.*more than plain weights.*safetensors"):
        pp.load(folders("llama"), adapter=unsafe)
    assert not (tmp_path / "ran").exists()
    as_bin(nested, {"step": 3})
    with pytest.raises(pp.PersonaProbeError, match="other things than tensors by name"):
        pp.load(folders("llama"), adapter=nested)


RENAMED = {
    "_orig_mod": ("base_model.model.", "base_model.model._orig_mod.", "saved from a wrapped model.*'_orig_mod'"),
    "module": ("base_model.model.", "module.base_model.model.", "saved from a wrapped model.*'module'"),
    "no prefix": ("base_model.model.", "", r"do not begin with 'base_model\.model\.'"),
}


@pytest.mark.parametrize("name", RENAMED)
def test_names_that_are_not_pefts_are_told(name, folders, tmp_path):
    old, new, message = RENAMED[name]
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora())
    rewrite(adapter, lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()})
    with pytest.raises(pp.PersonaProbeError, match=message):
        pp.load(folders("llama"), adapter=adapter)


def test_an_adapter_whose_values_were_not_gathered_is_told(folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora())
    rewrite(adapter, lambda tensors: {key: torch.zeros(0) for key in tensors})
    with pytest.raises(pp.PersonaProbeError, match=r"has shape \(0,\), so its values were not saved"):
        pp.load_pair(folders("llama"), adapter)


def test_a_start_that_nobody_can_repeat_is_refused(folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora(init_lora_weights="pissa_niter_4"))
    with pytest.raises(pp.PersonaProbeError, match=r"'pissa_niter_4', .* each time it comes out otherwise"):
        pp.load(folders("llama"), adapter=adapter)
    adapter, expected = trained(folders("llama"), tmp_path / "b", lora(init_lora_weights="pissa"))
    assert off(logits(pp.load(folders("llama"), adapter=adapter).hf), expected) < 1e-4


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_model.bin"])
@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_damaged_weight_file_is_named(name, content, folders, tmp_path):
    adapter, _ = trained(folders("llama"), tmp_path / "a", lora())
    (adapter / WEIGHTS).unlink()
    (adapter / name).write_bytes(content)
    with pytest.raises(pp.PersonaProbeError, match=rf"{name}: cannot be read"):
        pp.load(folders("llama"), adapter=adapter)


def test_of_several_adapters_in_a_folder_one_is_to_be_named(folders, tmp_path):
    for name in ("bad", "good"):
        trained(folders("llama"), tmp_path / "all" / name, lora())
    for load in (
        lambda: pp.load(folders("llama"), adapter=tmp_path / "all"),
        lambda: pp.load(tmp_path / "all"),
        lambda: pp.load_pair(folders("llama"), tmp_path / "all"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=r"holds 2 adapters in folders of their own \(bad, good\)"):
            load()
    (tmp_path / "all" / "bad" / WEIGHTS).unlink()
    with pytest.raises(pp.PersonaProbeError, match=r"has no adapter_model\.safetensors or adapter_model\.bin"):
        pp.load(folders("llama"), adapter=tmp_path / "all" / "bad")
