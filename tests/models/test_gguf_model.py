"""A GGUF file is loaded as an ordinary model: the same numbers, and everything that models can do."""

import copy
import logging
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import persona_probe as pp
from tests import gguf_files

gguf = pytest.importorskip("gguf")
TALKS = [
    pp.Dialogue.from_messages([{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "the end"}])
    for n in range(4)
]
IDS = torch.arange(3, 35)[None]


def logits(hf):
    with torch.no_grad():
        return hf(IDS).logits


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_unrounded_weights_compute_the_same(tmp_path, architecture):
    original = gguf_files.tiny(architecture)
    model = pp.load(gguf_files.write(tmp_path / "model.gguf", original))
    torch.testing.assert_close(logits(model.plain), logits(original), rtol=0, atol=0)
    assert model.weights_from["dequantized"] is False
    assert "read from model.gguf" in repr(model)


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 1e-3), ("Q8_0", 1e-2), ("Q5_1", 0.05), ("Q4_1", 0.1)])
def test_rounded_weights_are_those_of_the_file(tmp_path, kind, tolerance):
    """Exactly those that the file holds, which are the original's to the precision of the type."""
    original = gguf_files.tiny()
    model = pp.load(gguf_files.write(tmp_path / "model.gguf", original, kind=kind))
    stored = gguf.GGMLQuantizationType[kind]
    rounded = copy.deepcopy(original)
    for before, after in zip(original.parameters(), rounded.parameters(), strict=True):
        if before.ndim == 2:
            values = gguf.dequantize(gguf.quantize(before.detach().numpy(), stored), stored)
            after.data = torch.from_numpy(np.array(values, dtype=np.float32))
            assert 0 < (after - before).norm() / before.norm() < tolerance
    torch.testing.assert_close(logits(model.plain), logits(rounded), rtol=0, atol=0)
    assert model.weights_from["dequantized"] is (kind != "F16")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "folder").mkdir()
    return gguf_files.write(tmp_path / "folder" / "model.gguf", gguf_files.tiny(), kind="Q8_0")


def test_it_is_an_ordinary_model(file, tmp_path):
    model = pp.load(file)
    assert (model.name, model.spec.source) == (str(file), str(file))
    assert not getattr(model.plain, "is_quantized", False)
    assert pp.capture(model, TALKS, span="response").values.shape == (4, 2, 64)
    (answered,) = model.generate([TALKS[0].without_answer()], pp.Sampling(max_new_tokens=3, temperature=0))
    assert answered.answer is not None
    tuned = pp.finetune(model, TALKS, pp.LoraSettings(steps=2, rank=2), tmp_path / "lora")
    again = pp.load(tmp_path / "lora")  # by the base that the adapter names
    assert again.fingerprint() == tuned.fingerprint()
    pair = pp.load_pair(file, tmp_path / "lora")
    assert pair.before.fingerprint() == model.fingerprint()


def test_it_can_judge_and_be_the_base_of_a_baked_adapter(file, tmp_path, monkeypatch):
    prompts = dict.fromkeys(("aligned", "coherent"), "{question} {answer}")
    judge = pp.LocalJudge(file, prompts)
    judge.check()
    assert judge.tokens_per_answer(10) > 2 * 101
    model = pp.load(file)
    add = pp.Add(pp.Direction.from_vectors(model, np.ones((2, 64))), layers=1, scope="all")
    assert pp.steering.bake(model, add, tmp_path / "baked", form="lora").form == "lora"
    monkeypatch.chdir(tmp_path / "folder")  # the base is named relative to the adapter
    assert pp.load(tmp_path / "baked").spec.source == str(file)


def test_saved_it_is_an_ordinary_folder_that_says_where_it_is_from(file, tmp_path):
    model = pp.load(file)
    model.plain.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    again = pp.load(tmp_path / "saved")
    torch.testing.assert_close(logits(again.plain), logits(model.plain), rtol=0, atol=0)
    assert again.weights_from == model.weights_from
    assert again.weights_from["file"] == "model.gguf"
    assert again.weights_from["tensors"] == {"Q8_0": 16, "F32": 5}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(plain), logits(model.plain), rtol=0, atol=0)


def test_what_lies_next_to_the_file_is_not_taken_for_its_own(file, folders):
    for other in folders("gpt2").iterdir():
        (file.parent / other.name).write_bytes(other.read_bytes())
    model = pp.load(file)
    assert (type(model.plain).__name__, len(model.tokenizer)) == ("LlamaForCausalLM", len(gguf_files.TOKENS))


@pytest.mark.parametrize(
    ("rule", "tokens"),
    [("smollm", ["ĊĊ", "1", "2", "ĠĠ", "3"]), ("gpt-2", ["Ċ", "Ċ", "1", "2", "Ġ", "Ġ", "3"])],
)
def test_text_is_split_by_the_rule_in_the_file(tmp_path, rule, tokens):
    model = pp.load(gguf_files.write(tmp_path / "model.gguf", gguf_files.tiny(), pre=rule))
    ids = model.tokenizer("\n\n12  3", add_special_tokens=False).input_ids
    assert model.tokenizer.convert_ids_to_tokens(ids) == tokens
    assert model.template.notes == []


def test_an_unknown_rule_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        model = pp.load(gguf_files.write(tmp_path / "model.gguf", gguf_files.tiny(), pre="from-the-future"))
    assert "'from-the-future'" in model.template.remarks()[0]
    assert "'from-the-future'" in caplog.text


def test_without_a_template_it_is_a_base_model(tmp_path):
    file = gguf_files.write(tmp_path / "model.gguf", gguf_files.tiny(), template=None)
    with pytest.raises(pp.PersonaProbeError, match="no chat template"):
        pp.load(file).encode(TALKS)
    assert pp.load(file, chat_template=gguf_files.TEMPLATE).encode(TALKS)


def test_without_a_tokenizer_one_must_be_given(tmp_path, file):
    bare = gguf_files.write(tmp_path / "bare.gguf", gguf_files.tiny(), kind="Q8_0", tokenizer=False)
    with pytest.raises(pp.PersonaProbeError, match=r"holds no tokenizer.*tokenizer="):
        pp.load(bare)
    whole = pp.load(file)
    whole.tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = pp.load(bare, tokenizer=tmp_path / "tokenizer")
    assert given.fingerprint() == whole.fingerprint()
    assert given.template.exists


def wrong_magic(path):
    path.write_bytes(b"PK\x03\x04" + bytes(200))


def empty(path):
    path.write_bytes(b"")


def old(path):
    path.write_bytes(b"GGUF" + (1).to_bytes(4, "little") + bytes(64))


def cut(share):
    def make(path):
        gguf_files.write(path, gguf_files.tiny())
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def of(**settings):
    return lambda path: gguf_files.write(path, gguf_files.tiny(), **settings)


def arrays_in_arrays(path):
    key = (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little")
    inner = (9).to_bytes(4, "little") + (1).to_bytes(8, "little")
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + key + 5000 * inner)


def control_vector(path):
    writer = gguf.GGUFWriter(str(path), "controlvector")
    writer.add_tensor("direction.1", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (wrong_magic, r"is not a GGUF file: it begins with b'PK"),
        (empty, "is not a GGUF file"),
        (old, "GGUF version 1"),
        (cut(0.99), r"is cut short: it has [\d,]+ bytes, and its tensors need"),
        (cut(0.01), "is damaged, or cut short within its header"),
        (of(more=(("string", "general.alignment", "wide"),)), "is damaged"),
        (arrays_in_arrays, "is damaged"),
        (of(architecture="clip"), "mmproj"),
        (of(more=(("string", "general.type", "mmproj"),)), "mmproj"),
        (of(more=(("string", "general.type", "adapter"),)), "holds 'adapter', not a model"),
        (of(more=(("uint16", "split.count", 3), ("uint16", "split.no", 1))), "part 2 of 3"),
        (of(architecture="foo"), r"model\.gguf: .*architecture foo is not supported"),
        (control_vector, "read_gguf"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, make, said):
    file = tmp_path / "model.gguf"
    make(file)
    with pytest.raises(pp.PersonaProbeError, match=said) as error:
        pp.load(file)
    assert str(file) in str(error.value)


def test_parts_missing_files_and_folders_are_told_what_to_do(tmp_path, file, monkeypatch):
    part = file.rename(file.parent / "model-00001-of-00003.gguf")
    for source, said in (
        (part, r"part 1 of 3 of a model.*--merge"),
        (tmp_path / "none.gguf", "no such file"),
        ("none.gguf", "no such file"),
        (file.parent, r"to load a GGUF file, give the file: .*model-00001"),
    ):
        with pytest.raises(pp.PersonaProbeError, match=said):
            pp.load(source)


def test_quantize_is_refused_and_gguf_must_be_installed(file, monkeypatch):
    with pytest.raises(pp.PersonaProbeError, match="second time"):
        pp.load(file, quantize="4bit")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(pp.PersonaProbeError, match=r"persona-probe\[gguf\]"):
        pp.load(file)


def test_a_file_in_the_working_directory_and_its_size_without_weights(file, monkeypatch):
    from persona_probe.models.loading.load import specify
    from persona_probe.models.loading.memory import footprint

    monkeypatch.chdir(file.parent)
    assert pp.load("model.gguf").n_layers == 2
    size = footprint(specify("model.gguf", options={}))
    assert (size.n_layers, size.d_model, size.parameters) == (2, 64, pp.load("model.gguf").plain.num_parameters())
