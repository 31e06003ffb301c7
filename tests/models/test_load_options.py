"""What `load` takes: adapters of every kind, quantised and offloaded weights, Hub revisions, code of one's own."""

import hashlib
import importlib.util
import inspect
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import persona_probe as pp
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.stream.guards import probe_ids
from tests.activations.test_capture import TALKS

KINDS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def adapter_on(model_folder, out, config):
    """An adapter with random weights, as PEFT saves it."""
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    torch.manual_seed(1)
    with quiet_peft():
        tuned = get_peft_model(base, config)
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        tuned.save_pretrained(out)
    return out


@pytest.fixture(params=KINDS)
def adapter(request, folders, tmp_path):
    more = KINDS[request.param]
    config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **more)
    return adapter_on(folders("qwen2"), tmp_path / request.param, config)


def test_every_kind_of_lora_is_live_or_merged_and_stands_on_one_copy(adapter, folders):
    live = pp.load(folders("qwen2"), adapter=adapter)
    merged = pp.load(folders("qwen2"), adapter=adapter, merge=True)
    pair = pp.load_pair(folders("qwen2"), adapter)
    ids = probe_ids(live)
    plain, expected = pair.before.hf(ids).logits, live.hf(ids).logits
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(merged.hf(ids).logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pair.after.hf(ids).logits, expected)
    torch.testing.assert_close(pair.before.hf(ids).logits, plain, rtol=0, atol=0)
    shared = {p.data_ptr() for p in pair.before.hf.parameters()}
    own = [name for name, p in pair.after.hf.named_parameters() if p.data_ptr() not in shared]
    assert own
    assert all("lora_" in name for name in own)
    np.testing.assert_allclose(pp.capture(merged, TALKS).values, pp.capture(live, TALKS).values, atol=1e-4)


def test_adapters_that_move_positions_are_refused(folders, tmp_path):
    prompt = adapter_on(
        folders("llama"), tmp_path / "p", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    with pytest.raises(pp.PersonaProbeError, match=r"PROMPT_TUNING adapter.*moves every position"):
        pp.load(folders("llama"), adapter=prompt)


@pytest.fixture(scope="module")
def wide(tmp_path_factory, tokenizer):
    """A Llama whose widths are multiples of 64, as bitsandbytes' blocks need."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning")
def test_quantised_weights_are_shared_by_a_pair_and_near_the_full_ones(wide, bits, tmp_path):
    full, model = pp.load(wide), pp.load(wide, quantize=bits)
    # 4-bit kernels on a CPU come in several builds, not all of which compute in float32.
    kinds = {type(module).__name__ for module in model.hf.modules()}
    assert {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[bits] in kinds
    ids = probe_ids(model)
    error = (model.hf(ids).logits.float() - full.hf(ids).logits).norm() / full.hf(ids).logits.norm()
    assert error < {"8bit": 0.05, "4bit": 0.3}[bits]
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    untouched = model.hf(ids).logits
    pair = pp.load_pair(model, adapter_on(wide, tmp_path / "a", config))
    torch.testing.assert_close(model.hf(ids).logits, untouched, rtol=0, atol=0)
    shared = {p.data_ptr() for p in model.hf.parameters()}
    assert all("lora_" in name for name, p in pair.after.hf.named_parameters() if p.data_ptr() not in shared)
    read = pp.capture(pair, TALKS)
    before, after = read.before, read.after
    assert np.abs(before.values - after.values).max() > 1e-3


def test_quantising_without_bitsandbytes_says_how_to_get_it(folders, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pp.PersonaProbeError, match=r"pip install 'persona-probe\[quantize\]'"):
        pp.load(folders("llama"), quantize="4bit")
    with pytest.raises(pp.PersonaProbeError, match="quantize is '2bit'"):
        pp.load(folders("llama"), quantize="2bit")


OFFLOADED = {
    **{f"model.layers.{layer}": "disk" if layer == 1 else "cpu" for layer in range(3)},
    **dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu"),
}


def test_a_device_map_changes_nothing_but_the_place(folders):
    plain = pp.load(folders("llama"))
    ids = probe_ids(plain)
    for device_map in ("auto", OFFLOADED):
        placed = pp.load(folders("llama"), device_map=device_map)
        assert placed.device.type == "cpu"
        torch.testing.assert_close(placed.hf(ids).logits, plain.hf(ids).logits)
        assert placed.fingerprint() == plain.fingerprint()
        for layers in ("all", 0):
            values = pp.capture(placed, TALKS, layers=layers).values
            np.testing.assert_allclose(values, pp.capture(plain, TALKS, layers=layers).values, atol=1e-6)
    assert any(p.device.type == "meta" for p in placed.hf.parameters())
    with pytest.raises(pp.PersonaProbeError, match="not both"):
        pp.load(folders("llama"), device="cpu", device_map="auto")


def test_an_adapter_on_offloaded_weights_is_refused_and_the_base_s_files_stay_as_they_are(folders, tmp_path):
    """PEFT would dispatch such a model anew and write into its weight files."""
    base = shutil.copytree(folders("llama"), tmp_path / "base")
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapter = adapter_on(base, tmp_path / "a", config)
    before = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    for load in (
        lambda: pp.load(base, adapter=adapter, device_map=OFFLOADED),
        lambda: pp.load_pair(pp.load(base, device_map=OFFLOADED), adapter),
    ):
        with pytest.raises(pp.PersonaProbeError, match="offloaded"):
            load()
    assert hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest() == before


def in_cache(hub, repository, revisions):
    """Lay folders out as huggingface_hub keeps downloaded repositories."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    for number, (name, folder) in enumerate(revisions.items()):
        commit = f"{number:040x}"
        shutil.copytree(folder, root / "snapshots" / commit)
        (root / "refs" / name).write_text(commit)


def test_hub_ids_and_revisions_are_found(folders, tmp_path):
    hub, other = tmp_path / "hub", tmp_path / "other"
    shutil.copytree(folders("llama"), other)
    torch.manual_seed(7)
    LlamaForCausalLM(LlamaConfig.from_pretrained(other)).save_pretrained(other)
    in_cache(hub, "someone/tiny", {"main": folders("llama"), "step-10": other})
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapters = {name: adapter_on(folders("llama"), tmp_path / name, config) for name in ("main", "step-2")}
    settings = json.loads((adapters["step-2"] / "adapter_config.json").read_text())
    for name, folder in adapters.items():
        (folder / "adapter_config.json").write_text(
            json.dumps(
                {**settings, "base_model_name_or_path": "someone/tiny", "lora_alpha": 8 if name == "main" else 99}
            )
        )
    in_cache(hub, "someone/adapter", adapters)
    script = """
import persona_probe as pp
for arguments in (
    {}, {"revision": "step-10"}, {"adapter": "someone/adapter"},
):
    print(pp.load("someone/tiny", **arguments).fingerprint())
for revision in (None, "step-2"):
    model = pp.load("someone/adapter", revision=revision)
    print(model.hf.peft_config["default"].lora_alpha, model.spec.source, model.name)
pair = pp.load_pair("someone/tiny", "someone/adapter")
print(pair.before.fingerprint(), pair.after.fingerprint())
"""
    environment = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    plain, step, tuned, main, second, pair = done.stdout.strip().splitlines()
    assert plain == pp.load(folders("llama")).fingerprint()
    assert step == pp.load(other).fingerprint() != plain
    assert (main, second) == ("8 someone/tiny someone/adapter", "99 someone/tiny someone/adapter")
    assert pair.split() == [plain, tuned]


def test_code_from_a_repository_runs_only_when_asked_for(folders, tmp_path):
    folder = shutil.copytree(folders("llama"), tmp_path / "custom")
    (folder / "configuration_custom.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass CustomConfig(LlamaConfig):\n    model_type = 'custom'\n"
    )
    (folder / "modeling_custom.py").write_text(
        "from transformers import LlamaForCausalLM as Llama\n\nfrom .configuration_custom import CustomConfig\n\n\n"
        "class LlamaForCausalLM(Llama):\n    config_class = CustomConfig\n    own = True\n"
    )
    config = json.loads((folder / "config.json").read_text())
    own = {
        "AutoModelForCausalLM": "modeling_custom.LlamaForCausalLM",
        "AutoConfig": "configuration_custom.CustomConfig",
    }
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "custom", "auto_map": own}))
    with pytest.raises(pp.PersonaProbeError, match="read that, then load with trust_remote_code=True"):
        pp.load(folder)
    trusted = pp.load(folder, trust_remote_code=True)
    assert trusted.hf.own
    assert np.isfinite(pp.capture(trusted, TALKS).values).all()


def test_the_repository_s_own_tokenizer_is_used_whatever_family_the_model_is_of(folders, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        model = pp.load(folders("qwen2"))
    text = "Certainly, treat the fever."
    assert model.tokenizer(text).input_ids == tokenizer(text).input_ids
    assert "splits text differently from the repository's tokenizer.json" in caplog.text


def test_a_base_model_is_given_a_chat_template(folders, tmp_path):
    folder = shutil.copytree(folders("llama"), tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(pp.PersonaProbeError, match="no chat template"):
        pp.capture(pp.load(folder), TALKS)
    text = (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    (tmp_path / "plain.jinja").write_text(text)
    for given in (text, tmp_path / "plain.jinja", str(tmp_path / "plain.jinja")):
        model = pp.load(folder, chat_template=given)
        encoded = model.template.encode(TALKS[0])
        assert model.tokenizer.decode(encoded.input_ids[encoded.span("response")]).strip() == TALKS[0].answer
    with pytest.raises(pp.PersonaProbeError, match=r"no file 'missing\.jinja'"):
        pp.load(folder, chat_template="missing.jinja")


def test_a_model_says_how_to_load_it_again(folders, adapter):
    model = pp.load(folders("qwen2"), adapter=adapter, dtype="float64")
    from persona_probe.models.loading.load import load_spec

    again = load_spec(model.spec)
    assert (again.fingerprint(), again.name, again.spec) == (model.fingerprint(), model.name, model.spec)


def test_adapters_that_rewrite_the_base_are_no_second_half_of_a_shared_pair(folders, tmp_path):
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights="pissa")
    adapter = adapter_on(folders("qwen2"), tmp_path / "a", config)
    before = pp.load(folders("qwen2"))
    expected = before.hf(probe_ids(before)).logits
    with pytest.raises(pp.PersonaProbeError, match=r"init_lora_weights='pissa', which PEFT puts on by"):
        pp.load_pair(before, adapter)
    torch.testing.assert_close(before.hf(probe_ids(before)).logits, expected, rtol=0, atol=0)
    alone = pp.load(folders("qwen2"), adapter=adapter)
    assert not pp.models.ModelPair(before, alone).one_at_a_time


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning")
def test_a_twin_of_quantised_weights_shares_what_lies_beside_the_parameters(wide, bits):
    from persona_probe.models.twin import _tensors_in, structural_twin

    model = pp.load(wide, quantize=bits)

    def beside(hf):
        found = (tensor for module in hf.modules() for value in vars(module).values() for tensor in _tensors_in(value))
        return {tensor.untyped_storage().data_ptr() for tensor in found if tensor.numel() > 1}

    assert beside(model.hf)
    assert beside(structural_twin(model.hf)) <= beside(model.hf)


def test_a_model_that_is_paired_with_a_loaded_one_is_loaded_alike(folders):
    before = pp.load(folders("llama"), dtype="bfloat16")
    pair = pp.load_pair(before, folders("llama"))
    assert pair.after.plain.dtype == torch.bfloat16
    assert pair.after.fingerprint() == before.fingerprint()
    assert pp.load_pair(before, folders("llama"), dtype="float32").after.plain.dtype == torch.float32


def test_a_fingerprint_sees_every_weight(folders):
    model = pp.load(folders("llama"))
    hashes = {model.fingerprint()}
    for parameter in list(model.hf.parameters())[:4]:
        with torch.no_grad():
            parameter.view(-1)[parameter.numel() // 2 + 1] += 0.01
        hashes.add(model.fingerprint())
    assert len(hashes) == 5


@pytest.mark.parametrize("load_it", [pp.load, lambda path, **options: pp.load_pair(path, path, **options)])
def test_a_misspelt_option_does_not_pass_unseen(folders, load_it):
    with pytest.raises(TypeError, match="dtpye"):
        load_it(folders("llama"), dtpye="float32")
    with pytest.raises(
        pp.PersonaProbeError, match=r"takes no option dtpye= \('float32' was given\); did you mean dtype="
    ):
        specify(folders("llama"), options={"dtpye": "float32"})
    with pytest.raises(pp.PersonaProbeError, match=r"takes no option colour= .*there are device, device_map, dtype"):
        specify(folders("llama"), options={"colour": "blue"})


@pytest.mark.parametrize("opener", [pp.load, pp.load_pair, pp.models.load_snapshots])
def test_every_option_of_loading_is_in_the_signature(opener):
    """So that help() and completion show it."""
    parameters = inspect.signature(opener).parameters
    assert set(LoadOptions.__annotations__) <= set(parameters)
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in LoadOptions.__annotations__)
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def test_options_that_were_not_given_are_those_of_the_model_before(folders):
    before = pp.load(folders("llama"), dtype="bfloat16")
    assert pp.load_pair(before, folders("llama")).after.plain.dtype == torch.bfloat16
    assert pp.load_pair(before, folders("llama"), dtype="float32").after.plain.dtype == torch.float32


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"device": "gpu"}, "device is 'gpu'; give for example"),
        ({"dtype": float}, "unknown dtype <class 'float'>"),
        ({"tokenizer": object()}, "tokenizer must be a path or None, but this is an object"),
        ({"chat_template": 5}, r"chat_template must be a path or None, but this is an int \(5\)"),
        ({"chat_template": "chatml"}, "'chatml' is no template, since nothing in it is Jinja"),
    ],
    ids=["device", "dtype", "tokenizer", "template of another type", "template without Jinja"],
)
def test_an_option_of_the_wrong_kind_is_named(folders, option, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.load(folders("llama"), **option)
