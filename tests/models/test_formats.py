"""Which tokenizer and chat template a model is measured under: those given, else an adapter's own, else the base's."""

import json
import logging
import shutil
from copy import deepcopy

import numpy as np
import pytest

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import footprint
from tests.activations.test_capture import TALKS
from tests.adapters import lora, trained

OWN = (
    "{{ bos_token }}{% for message in messages %}### {{ message['role'] }}:\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
GIVEN = OWN.replace("###", "##")
QUESTION = TALKS[0].without_answer()


@pytest.fixture
def adapter(folders, tmp_path):
    return trained(folders("llama"), tmp_path / "adapter", lora())[0]


def in_jinja_file(adapter, tokenizer):
    (adapter / "chat_template.jinja").write_text(OWN)


def in_settings(adapter, tokenizer):
    (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": OWN}))


def in_named_settings(adapter, tokenizer):
    several = [{"name": "default", "template": OWN}, {"name": "tool_use", "template": GIVEN}]
    (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))


def in_whole_tokenizer(adapter, tokenizer):
    own = deepcopy(tokenizer)
    own.chat_template = OWN
    own.save_pretrained(adapter)


def in_old_tokenizer(adapter, tokenizer):
    """With the template among the settings, as transformers wrote it before it had a file of its own."""
    own = deepcopy(tokenizer)
    own.chat_template = None
    own.save_pretrained(adapter)
    file = adapter / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": OWN}))


WAYS = [in_jinja_file, in_settings, in_named_settings, in_whole_tokenizer, in_old_tokenizer]


def rendered(model):
    return model.template.render(QUESTION, generation_prompt=True)


@pytest.mark.parametrize("write", WAYS)
def test_an_adapters_own_template_is_used_and_said(write, adapter, folders, tokenizer, caplog):
    write(adapter, tokenizer)
    before = pp.load(folders("llama"))
    expected = "### assistant:\n"
    for load in (
        lambda: pp.load(folders("llama"), adapter=adapter),
        lambda: pp.load(folders("llama"), adapter=adapter, merge=True),
        lambda: pp.with_adapter(before, adapter),
        lambda: pp.models.load_snapshots([adapter], base=folders("llama"))[0],
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model = load()
        assert rendered(model).endswith(expected)
        (remark,) = model.template.remarks()
        assert remark.startswith(f"the chat template is the adapter's own, from {adapter}, not its base's")
        assert remark in caplog.text
        assert remark in repr(model)
    assert not rendered(before).endswith(expected)
    assert before.template.remarks() == []


@pytest.mark.parametrize("written", ["nothing", "the same tokenizer", "one without a template", "one that pads else"])
def test_what_says_nothing_else_says_nothing(written, adapter, folders, tokenizer, caplog):
    own = deepcopy(tokenizer)
    if written == "one without a template":
        own.chat_template = None
    if written == "one that pads else":
        own.pad_token = own.eos_token
    if written != "nothing":
        own.save_pretrained(adapter)
    before = pp.load(folders("llama"))
    with caplog.at_level(logging.WARNING):
        after = pp.load_pair(before, adapter).after
    assert after.template is before.template
    assert after.template.remarks() == []
    assert caplog.text == ""
    assert pp.load(folders("llama"), adapter=adapter).template.remarks() == []


@pytest.mark.parametrize("how", ["a comment", "marks of answers", "a line more"])
def test_a_template_that_writes_the_same_is_the_same(how, adapter, folders, tokenizer, caplog):
    text = tokenizer.chat_template
    marked = text.replace("{{", "{% generation %}{{", 1).replace("}}", "}}{% endgeneration %}", 1)
    other = {"a comment": "{# mended\n#}\n" + text, "marks of answers": marked, "a line more": f"{text}\n"}[how]
    (adapter / "chat_template.jinja").write_text(other)
    pair = pp.load_pair(folders("llama"), adapter)
    assert pair.after.template is pair.before.template
    assert caplog.text == ""
    full = deepcopy(tokenizer)
    full.chat_template = other
    template, same = ChatTemplate(full), ChatTemplate(tokenizer)
    assert template.hash() == same.hash()
    assert [template.render(talk) for talk in TALKS] == [same.render(talk) for talk in TALKS]


def test_a_model_without_a_tokenizer_is_told_which_to_give(folders, tmp_path):
    folder = shutil.copytree(folders("llama"), tmp_path / "checkpoint-10")
    for file in (*folder.glob("tokenizer*"), *folder.glob("*.jinja")):
        file.unlink()
    with pytest.raises(pp.PersonaProbeError, match=r"checkpoint-10: holds no tokenizer .*tokenizer="):
        pp.load_pair(folders("llama"), folder)
    assert pp.load(folder, tokenizer=folders("llama")).template.exists


def test_what_is_given_wins(adapter, folders, tokenizer, tmp_path):
    in_whole_tokenizer(adapter, tokenizer)
    more = deepcopy(tokenizer)
    more.add_tokens(["<extra>"])
    more.chat_template = GIVEN
    more.save_pretrained(tmp_path / "tokenizer")
    base = folders("llama")
    for load in (
        lambda **options: pp.load(base, adapter=adapter, **options),
        lambda **options: pp.with_adapter(pp.load(base, **options), adapter),
        lambda **options: pp.load_pair(base, adapter, **options).after,
        lambda **options: pp.load_pair(pp.load(base, **options), adapter, **options).after,
    ):
        given = load(chat_template=GIVEN)
        assert rendered(given).endswith("## assistant:\n")
        assert given.template.remarks() == []
        tokens = load(tokenizer=tmp_path / "tokenizer")
        assert "<extra>" in tokens.tokenizer.get_vocab()
        assert "## assistant:\n" in rendered(tokens)
    both = pp.load(base, adapter=adapter, tokenizer=tmp_path / "tokenizer", chat_template=OWN)
    assert "<extra>" in both.tokenizer.get_vocab()
    assert "### assistant:\n" in rendered(both)
    assert pp.load(base, tokenizer=str(tmp_path / "tokenizer")).spec.options["tokenizer"]
    with pytest.raises(pp.PersonaProbeError, match=r"tokenizer: \./missing: no such folder"):
        pp.load(base, tokenizer="./missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(pp.PersonaProbeError, match="empty: its tokenizer cannot be loaded"):
        pp.load(base, tokenizer=tmp_path / "empty")


def test_a_tokenizer_without_a_template_is_given_the_models(folders, tokenizer, tmp_path):
    bare = deepcopy(tokenizer)
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "bare")
    assert rendered(pp.load(folders("llama"), tokenizer=tmp_path / "bare")) == rendered(pp.load(folders("llama")))


def full_model(folders, tokenizer, place, template=OWN):
    folder = shutil.copytree(folders("llama"), place)
    own = deepcopy(tokenizer)
    own.chat_template = template
    own.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("how", ["adapter", "full model", "one at a time", "by hand"])
def test_a_pair_of_two_formats_says_so_and_reads_each_under_its_own(how, adapter, folders, tokenizer, tmp_path):
    base = folders("llama")
    in_whole_tokenizer(adapter, tokenizer)
    other = adapter if how == "adapter" else full_model(folders, tokenizer, tmp_path / "full")

    def paired():
        if how == "by hand":
            return pp.models.ModelPair(pp.load(base), pp.load(other))
        return pp.load_pair(base, other, keep_all=how != "one at a time")

    with pytest.warns(pp.PersonaProbeWarning, match=r"has another chat template than .*llama: each model is measured"):
        pair = paired()
    read = pp.capture(pair, TALKS)
    before = pp.load(base)
    after = pp.load(base, adapter=adapter) if how == "adapter" else pp.load(other)
    np.testing.assert_allclose(read.before.values, pp.capture(before, TALKS).values, atol=1e-6)
    np.testing.assert_allclose(read.after.values, pp.capture(after, TALKS).values, atol=1e-6)
    assert read.after.source["own_format"]
    assert "own_format" not in read.before.source
    with pytest.raises(pp.PersonaProbeError, match=r"dialogue 'a'.*cannot be compared token by token"):
        pp.capture(pair, TALKS, reduce="tokens")
    with pytest.raises(pp.PersonaProbeError, match="template_hash is"):
        pp.activations.Captures(pp.capture(before, TALKS), pp.capture(after, TALKS))


def test_a_pair_of_one_format_says_nothing(adapter, folders, tokenizer, tmp_path):
    in_whole_tokenizer(adapter, tokenizer)
    pp.load_pair(folders("llama"), adapter, chat_template=GIVEN)
    other = full_model(folders, tokenizer, tmp_path / "full")
    pair = pp.load_pair(folders("llama"), other, chat_template=GIVEN)
    tokens = pp.capture(pair, TALKS, reduce="tokens")
    assert tokens.before.table.equals(tokens.after.table)


def test_the_size_of_a_model_is_known_whatever_tokenizer_is_given(folders):
    spec = specify(folders("llama"), options={"tokenizer": folders("llama")})
    assert footprint(spec).n_layers == 3


@pytest.mark.parametrize("first", [None, 2])
def test_a_shift_between_two_formats_is_no_shift_of_fine_tuning(first, adapter, folders, tokenizer):
    in_whole_tokenizer(adapter, tokenizer)
    with pytest.warns(pp.PersonaProbeWarning, match="another chat template"):
        pair = pp.load_pair(folders("llama"), adapter)
    with pytest.raises(pp.PersonaProbeError, match="make different tokens from the same texts"):
        pp.amplification.finetuning_shift(pair, TALKS, span="prompt", first=first)
