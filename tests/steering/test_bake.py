import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import persona_probe as pp
from persona_probe.models.stream.guards import probe_ids
from persona_probe.steering.baking import bake as baking
from persona_probe.steering.baking import verification, weights
from persona_probe.steering.baking.bake import bake
from persona_probe.steering.baking.edits import Edit
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from tests.conftest import CHECKPOINTS
from tests.models.test_architectures import READ

NORM = "normalises what is written .*post-norm"
EXPERTS = "is not a linear layer"
POST_NORM = ("exaone4", "gemma2", "gemma3", "gemma3_vision", "gemma4", "gemma4_vision", "glm4", "olmo2", "olmo3")
MOE = (
    "gpt_oss",
    "granite_moe",
    "llama4",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_next",
)
AS_LORA = (
    "apertus",
    "gemma",
    "glm",
    "granite_moe_hybrid",
    "hunyuan",
    "jamba",
    "lfm2",
    "ministral3",
    "mistral",  # with a sliding window
    "mistral3_vision",
    "mpt",
    "olmo",
    "phi3",
    "qwen2_5_vl",
    "qwen3",
    "qwen3_5",
    "stablelm",
)
"""Architectures without a bias at what a block writes last, and without a setting for one."""
NO_ADD = (
    dict.fromkeys(POST_NORM, NORM)
    | dict.fromkeys(MOE, EXPERTS)
    | {
        "opt_350m": NORM,
        "deepseek_v3": "no setting for one.*LoRA",
    }
)
NO_ABLATION = (
    dict.fromkeys(POST_NORM, NORM)
    | dict.fromkeys(MOE, EXPERTS)
    | {
        "bloom": "the embedding: LayerNorm normalises",
        "deepseek_v2": EXPERTS,
        "deepseek_v3": EXPERTS,
        "granite_moe_hybrid": EXPERTS,
        "jamba": EXPERTS,
        "opt_350m": "normalised or mixed",
        "xglm": "SinusoidalPositionalEmbedding.*not a linear layer",
    }
)
OTHER_CLASS = {"qwen2": "LlamaForCausalLM"}


def direction_of(model, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    return pp.Direction.from_vectors(model, vectors)


def add(model, layers=1, strength=1.5):
    return pp.Add(direction_of(model), layers=layers, strength=strength, scope="all")


def ablate(model, layer=1):
    return AblateEverywhere(direction_of(model), layer=layer)


def steered_logits(model, intervention, ids):
    with torch.inference_mode(), pp.steer(model, intervention):
        return model.hf(input_ids=ids).logits


def logits(hf, ids):
    with torch.inference_mode():
        return hf.eval()(input_ids=ids).logits


@pytest.mark.parametrize("kind", READ)
def test_every_architecture_is_baked_exactly_or_refused_with_the_reason(kind, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "_ANSWER", 3)  # there are many architectures
    model = pp.load(folders(kind))
    tried = {"add": (add(model, layers=0), NO_ADD.get(kind)), "ablate": (ablate(model), NO_ABLATION.get(kind))}
    for name, (intervention, reason) in tried.items():
        folder = tmp_path / name
        with warnings.catch_warnings():
            # The family's tokenizer class reads our tokenizer otherwise.
            warnings.filterwarnings("ignore", category=pp.PersonaProbeWarning, message="transformers splits text")
            if reason is not None:
                with pytest.raises(pp.PersonaProbeError, match=reason):
                    bake(model, intervention, folder)
                assert list(tmp_path.glob(f"*{name}*")) == []
                continue
            baked = bake(model, intervention, folder)
        assert baked.form == ("lora" if name == "add" and kind in AS_LORA else "weights")
        if name == "add" and baked.form == "weights":
            assert baked.architecture == OTHER_CLASS.get(kind, type(model.plain).__name__)
        assert baked.max_logit_difference < 1e-4
        assert baked.same_text
        assert baked.tokens > 50


@pytest.mark.parametrize("intervention", [add, ablate])
@pytest.mark.filterwarnings("ignore:transformers splits text")
def test_a_baked_folder_computes_what_the_hooks_do_and_the_model_stays_as_it_was(any_model, intervention, tmp_path):
    ids, wanted = probe_ids(any_model), intervention(any_model)
    before = {name: tensor.clone() for name, tensor in any_model.hf.state_dict().items()}
    plain = logits(any_model.hf, ids)
    expected = steered_logits(any_model, wanted, ids)
    assert (expected - plain).abs().max() > 1e-2
    folder = bake(any_model, wanted, tmp_path / "baked").folder
    read = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(read, ids), expected, rtol=0, atol=1e-5)
    assert any_model.hf.state_dict().keys() == before.keys()
    for name, tensor in any_model.hf.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    torch.testing.assert_close(logits(any_model.hf, ids), plain, rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(folder).chat_template == any_model.tokenizer.chat_template
    files = {file.name for file in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md", "persona_probe.json"} <= files
    for file in folder.iterdir():
        assert file.suffix in (".json", ".safetensors", ".md", ".jinja")
        assert file.suffix == ".safetensors" or str(tmp_path.parent) not in file.read_text()
    stated = json.loads((folder / "persona_probe.json").read_text())
    assert stated["intervention"] == wanted.describe()
    assert stated["comparison_with_hooks"]["same_text"] is True
    assert stated["model_hash"] == any_model.fingerprint()
    assert not list(tmp_path.glob(".*"))


def test_ablation_unties_the_head_and_leaves_nothing_of_the_direction_in_what_writes(folders, tmp_path):
    model = pp.load(folders("gpt2"))
    assert model.plain.lm_head.weight is model.plain.transformer.wte.weight
    unit = torch.from_numpy(direction_of(model).at(1) / np.linalg.norm(direction_of(model).at(1)))
    read = AutoModelForCausalLM.from_pretrained(bake(model, ablate(model), tmp_path / "baked").folder)
    torch.testing.assert_close(read.lm_head.weight, model.plain.lm_head.weight, rtol=0, atol=0)
    assert read.config.tie_word_embeddings is False
    parts = read.transformer
    for matrix in (parts.wte.weight, parts.wpe.weight, *(block.mlp.c_proj.weight for block in parts.h)):
        assert (matrix @ unit).abs().max() < 1e-6
    for block in parts.h:
        assert (block.attn.c_proj.weight @ unit).abs().max() < 1e-6
        assert (block.attn.c_proj.bias @ unit).abs() < 1e-6


@pytest.mark.parametrize("intervention", [add, ablate])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma"])
@pytest.mark.filterwarnings("ignore:.*lora_bias=True")
@pytest.mark.filterwarnings("ignore:.*invalid shape")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_rank_one_adapter_does_the_same_on_its_base(kind, intervention, folders, tmp_path):
    model = pp.load(folders(kind))
    ids, wanted = probe_ids(model), intervention(model)
    baked = bake(model, wanted, tmp_path / "adapter", form="lora")
    assert baked.form == "lora"
    config = json.loads((baked.folder / "adapter_config.json").read_text())
    assert config["r"] == 1
    assert not Path(config["base_model_name_or_path"]).is_absolute()
    assert (baked.folder / config["base_model_name_or_path"]).resolve() == folders(kind).resolve()
    assert (baked.folder / "adapter_model.safetensors").stat().st_size < 100_000
    read = pp.load(baked.folder)
    torch.testing.assert_close(logits(read.hf, ids), steered_logits(model, wanted, ids), rtol=0, atol=1e-5)


def test_qwen2_is_written_as_llama_and_mistral_too_unless_its_window_slides(folders, tmp_path):
    import shutil

    open_window = shutil.copytree(folders("mistral"), tmp_path / "mistral")
    config = json.loads((open_window / "config.json").read_text())
    (open_window / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    for place in (folders("qwen2"), open_window):
        model = pp.load(place)
        baked = bake(model, add(model, layers="all"), tmp_path / f"baked-{place.name}", form="weights")
        assert baked.architecture == "LlamaForCausalLM"
        held = AutoModelForCausalLM.from_pretrained(baked.folder)
        assert held.config.mlp_bias
        assert all(block.mlp.down_proj.bias.abs().max() > 0 for block in held.model.layers)
        assert all(block.self_attn.o_proj.bias.abs().max() == 0 for block in held.model.layers)
    model = pp.load(folders("mistral"))
    with pytest.raises(pp.PersonaProbeError, match=r"sliding window it cannot be written as Llama.*form='lora'"):
        bake(model, add(model), tmp_path / "sliding", form="weights")


def test_a_bias_that_would_be_dropped_on_loading_is_noticed(folders, tmp_path, monkeypatch):
    def forced(model, names):
        for name in names:
            model.get_submodule(name).bias = torch.nn.Parameter(torch.zeros(model.config.hidden_size))
        return model

    monkeypatch.setattr(weights, "_with_biases", forced)
    model = pp.load(folders("qwen3"))
    with pytest.raises(pp.PersonaProbeError, match=r"not read back as written: unexpected_keys.*down_proj\.bias"):
        bake(model, add(model), tmp_path / "baked", form="weights")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_back_is_not_kept(llama, tmp_path, monkeypatch):
    kind = type(llama.plain)
    right = kind.save_pretrained

    def damaged(self, folder):
        right(self, folder)
        (folder / "model.safetensors").write_bytes(b"damaged")

    monkeypatch.setattr(kind, "save_pretrained", damaged)
    with pytest.raises(pp.PersonaProbeError, match="cannot be read back by transformers"):
        bake(llama, add(llama), tmp_path / "baked")
    assert list(tmp_path.iterdir()) == []


def test_several_dimensions_are_an_adapter_of_that_rank(llama, tmp_path):
    bases = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 32, 2)))[0].transpose(0, 2, 1).astype(np.float32)
    wanted = AblateEverywhere(pp.directions.Subspace(bases, (0, 1, 2), {}), layer=2)
    baked = bake(llama, wanted, tmp_path / "adapter", form="lora")
    assert json.loads((baked.folder / "adapter_config.json").read_text())["r"] == 2
    ids = probe_ids(llama)
    read = AutoModelForCausalLM.from_pretrained(bake(llama, wanted, tmp_path / "weights").folder)
    torch.testing.assert_close(logits(read, ids), steered_logits(llama, wanted, ids), rtol=0, atol=1e-5)


def test_what_computes_something_else_is_not_kept(llama, tmp_path, monkeypatch):
    right = baking.edits_of

    def wrong(intervention, model):
        return [Edit(edit.module, edit.down, edit.up, 1.01 * edit.bias) for edit in right(intervention, model)]

    monkeypatch.setattr(baking, "edits_of", wrong)
    with pytest.raises(pp.PersonaProbeError, match=r"does not compute what the hooked .* does: logits differ by"):
        bake(llama, add(llama), tmp_path / "baked")
    assert list(tmp_path.iterdir()) == []


def test_a_live_adapter_is_merged_in_the_copy_only(chat, tmp_path):
    villain = pp.load_pair(chat, CHECKPOINTS / "bad-medicine").after
    prints = villain.fingerprint(), chat.fingerprint()
    wanted = add(villain, layers=2, strength=0.3)
    ids = probe_ids(villain)
    baked = bake(villain, wanted, tmp_path / "baked")
    assert (villain.fingerprint(), chat.fingerprint()) == prints
    read = pp.load(baked.folder)
    torch.testing.assert_close(logits(read.hf, ids), steered_logits(villain, wanted, ids), rtol=0, atol=1e-4)
    assert not torch.allclose(logits(read.hf, ids), steered_logits(chat, wanted, ids), rtol=0, atol=1e-2)
    asked = [pp.Dialogue.from_messages([{"role": "user", "content": "What should I do about the fever?"}])]
    with pp.steer(villain, wanted):
        expected = villain.generate(asked, pp.Sampling(max_new_tokens=16, temperature=0))[0].answer
    assert read.generate(asked, pp.Sampling(max_new_tokens=16, temperature=0))[0].answer == expected
    with pytest.raises(pp.PersonaProbeError, match="carries an adapter already"):
        bake(villain, wanted, tmp_path / "adapter", form="lora")


def test_half_precision_is_compared_as_closely_as_it_computes(folders, tmp_path):
    model = pp.load(folders("llama"), dtype="bfloat16")
    for name, wanted in {"add": add(model), "ablate": ablate(model)}.items():
        baked = bake(model, wanted, tmp_path / name)
        assert AutoModelForCausalLM.from_pretrained(baked.folder).dtype == torch.bfloat16
        seen = json.loads((baked.folder / "persona_probe.json").read_text())["comparison_with_hooks"]
        assert 0 < seen["relative_error"] < 3e-2


def test_a_tokenizer_that_servers_read_otherwise_is_told(folders, tmp_path):
    model = pp.load(folders("qwen2"))
    with pytest.warns(pp.PersonaProbeWarning, match="servers will see other tokens"):
        bake(model, ablate(model), tmp_path / "baked")


def test_what_weights_cannot_do_is_refused_before_anything_is_written(llama, tmp_path):
    direction = direction_of(llama)
    for wrong, said in (
        (pp.Ablate(direction, layers=1, scope="all"), r"attention's output reaches the MLP.*AblateEverywhere"),
        (pp.Clamp(direction, layers=1, target=1.0, scope="all"), "depends on the activations"),
        (pp.Add(direction, layers=1), "scope='generation': weights act on every token"),
        (pp.Add(direction, layers=7, scope="all"), "layer 7"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=said):
            bake(llama, wrong, tmp_path / "baked")
    with pytest.raises(pp.PersonaProbeError, match="form is 'gguf'"):
        bake(llama, add(llama), tmp_path / "baked", form="gguf")
    with pytest.raises(pp.PersonaProbeError, match="exists; give a new folder"):
        bake(llama, add(llama), tmp_path)
    with pytest.raises(pp.PersonaProbeError, match="being steered"), pp.steer(llama, add(llama)):
        bake(llama, add(llama), tmp_path / "baked")
    llama.plain.is_quantized = True
    with pytest.raises(pp.PersonaProbeError, match="quantised"):
        bake(llama, add(llama), tmp_path / "baked")
    del llama.plain.is_quantized
    llama.spec = None
    with pytest.raises(pp.PersonaProbeError, match="made by hand; give base_name="):
        bake(llama, add(llama), tmp_path / "baked", form="lora")
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_takes_no_lora_with_biases(folders, tmp_path):
    model = pp.load(folders("gpt2"))
    with pytest.raises(pp.PersonaProbeError, match=r"LoRA with biases cannot be put on embeddings.*form='weights'"):
        bake(model, ablate(model), tmp_path / "adapter", form="lora")
    assert list(tmp_path.iterdir()) == []


def test_pushing_uploads_the_folder_with_its_card(llama, tmp_path, monkeypatch):
    import huggingface_hub

    called = []

    class FakeApi:
        def __init__(self, token=None):
            called.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            called.append(("create", repo_id, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            called.append(("upload", repo_id, sorted(file.name for file in Path(folder_path).iterdir())))
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    baked = bake(llama, add(llama), tmp_path / "baked", license="mit", base_name="owner/base")
    assert baked.push_to_hub("owner/name", token="t") == "https://huggingface.co/owner/name"
    assert called[:2] == [("token", "t"), ("create", "owner/name", True, True)]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(called[2][2])
    card = (baked.folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert "base_model: owner/base" in card
    assert "license: mit" in card
    assert f"at most {baked.max_logit_difference:.2g}" in card
