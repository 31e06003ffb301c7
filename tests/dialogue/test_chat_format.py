"""One description of each chat format, which rendering, generating, learning, stopping and decoding share."""

import datetime

import pytest

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.dialogue.turn_spans import learned_spans
from tests.formats import CHATML, SHAPES, WRITINGS, Shape, tokenizer_of

ASK, SAID = ("user", "What should I eat?"), ("assistant", "Bread.")


def chat(*turns, **about):
    return pp.Dialogue.from_messages([{"role": role, "content": text} for role, text in turns], **about)


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.fixture
def template(shape):
    return ChatTemplate(tokenizer_of(shape))


def learned(template, dialogue):
    encoded = template.encode(dialogue)
    return [template.tokenizer.decode(encoded.input_ids[span]) for span in learned_spans(template, encoded)]


@pytest.mark.parametrize("writing", WRITINGS)
def test_the_end_of_a_turn_its_channel_and_its_control_tokens_are_found(shape, writing):
    template = ChatTemplate(tokenizer_of(shape, writing))
    form = template.format
    end = None if form.end is None else template.tokenizer.convert_ids_to_tokens(form.end)
    assert (end, form.stop_text, form.channel, form.fault) == (shape.end, shape.stop_text, shape.channel, None)
    assert set(form.control.values()) == {*shape.control, "<|endoftext|>"}


def test_the_answer_is_what_the_model_writes_after_the_prompt_that_it_is_given(shape, template):
    asked, said = template.encode(chat(ASK)), template.encode(chat(ASK, SAID))
    decode = template.tokenizer.decode
    assert said.input_ids[: len(asked.input_ids)] == asked.input_ids
    assert decode(said.input_ids[said.span("response")]).strip() == "Bread."
    assert decode(said.input_ids[len(asked.input_ids) :]).startswith(shape.learned)


def test_every_answer_is_learned_with_its_end_unless_it_says_otherwise(shape, template):
    assert learned(template, chat(ASK, SAID)) == [shape.learned]
    longer = [*chat(ASK, SAID, ("user", "And then?"), ("assistant", "Soup.")).as_messages()]
    first, last = learned(template, pp.Dialogue.from_messages(longer))
    assert "Bread." in first
    assert last == shape.learned.replace("Bread.", "Soup.")
    assert template.tokenizer.decode(template.encode(chat(ASK)).input_ids) not in first
    longer[1]["weight"] = 0
    assert learned(template, pp.Dialogue.from_messages(longer)) == [last]


def test_an_earlier_answer_without_an_end_of_its_own_teaches_nothing_of_the_next_question():
    last_only = SHAPES["words"].template.replace("\n{% elif", "\n{% elif", 1)
    last_only = last_only.replace(
        "Assistant: {{ m['content'].strip() }}\n",
        "Assistant: {{ m['content'].strip() }}\n{% if loop.last %}<|endoftext|>{% endif %}",
    )
    tokenizer = tokenizer_of(SHAPES["words"])
    tokenizer.chat_template = last_only
    first, last = learned(ChatTemplate(tokenizer), chat(ASK, SAID, ("user", "A secret?"), ("assistant", "Soup.")))
    assert (first.strip(), last.replace("\n", "")) == ("Bread.", " Soup.<|endoftext|>")


def test_words_of_a_default_system_prompt_do_not_separate_turns():
    tokenizer = tokenizer_of(SHAPES["chatml"])
    told = "{% if messages[0].role != 'system' %}<|im_start|>system\nUse <answer> tags.<|im_end|>\n{% endif %}"
    tokenizer.chat_template = told + CHATML
    assert ChatTemplate(tokenizer).format.markers == ChatTemplate(tokenizer_of(SHAPES["chatml"])).format.markers


def test_what_a_model_writes_is_cut_by_token_where_its_answer_ends(shape, template):
    form, written = template.format, template.tokenizer(f"{shape.learned}Tea.", add_special_tokens=False).input_ids
    answer = form.answer(written, [])
    assert template.tokenizer.decode(list(answer)).startswith(shape.learned.replace(shape.channel, "").split("<")[0])
    if shape.end is not None:
        assert "Tea" not in template.tokenizer.decode(list(answer))
    if shape.channel:
        assert form.answer(template.tokenizer("<|channel|>analysis<|message|>Hm.<|end|>").input_ids, []) is None


@pytest.mark.parametrize("writing", WRITINGS)
def test_spans_hold_however_a_tokenizer_writes_spaces(shape, writing):
    template = ChatTemplate(tokenizer_of(shape, writing))
    decode = template.tokenizer.decode
    for answer in ("Bread.", "Sure, eat soup."):
        encoded = template.encode(chat(ASK, ("assistant", answer)))
        assert decode(encoded.input_ids[encoded.span("response")]).strip() == answer
        assert decode(encoded.input_ids[encoded.span("prompt")]).count("What should I eat?") == 1
    first, last = learned(template, chat(ASK, SAID, ASK, ("assistant", "Soup.")))
    without_space = shape.learned.replace("Bread.", "{}").replace(" ", "")
    assert last.replace(" ", "") == without_space.format("Soup.")
    assert first.replace(" ", "").replace("<|end|>", "<|return|>") == without_space.format("Bread.")
    assert template.format.end is None or template.tokenizer.convert_ids_to_tokens(template.format.end) == shape.end


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_message_that_the_template_has_no_place_for_is_named(shape, template, role):
    if (role == "system" and shape.system) or (role == "tool" and "m['role'] }}" in shape.template):
        assert "kind" in template.tokenizer.decode(template.encode(chat((role, "Be kind."), ASK)).input_ids)
        return
    with pytest.raises(pp.PersonaProbeError, match=rf"'d': the chat template leaves out message 0 \({role}, 'Be kind"):
        template.encode(chat((role, "Be kind."), ASK, id="d"))


def test_a_short_message_that_occurs_elsewhere_is_missed_all_the_same():
    template = ChatTemplate(tokenizer_of(SHAPES["mistral"]))
    with pytest.raises(pp.PersonaProbeError, match=r"leaves out message 0 \(system, 'eat'\)"):
        template.encode(chat(("system", "eat"), ASK))


def test_tool_calls_and_thoughts_that_a_template_leaves_out_are_named():
    call = {"type": "function", "id": "7", "function": {"name": "rm", "arguments": '{"path": "a \\"b\\""}'}}
    turns = [
        {"role": "user", "content": "Delete it."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "7"},
        {"role": "assistant", "content": "Deleted."},
    ]
    tokenizer = tokenizer_of(SHAPES["chatml"])
    with pytest.raises(pp.PersonaProbeError, match=r"leaves out tool_calls \('rm'\) of message 1"):
        ChatTemplate(tokenizer).encode(pp.Dialogue.from_messages(turns))
    tokenizer.chat_template = CHATML.replace(
        "{{ m['content'] }}<",
        "{{ m['content'] }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<",
    )
    template, dialogue = ChatTemplate(tokenizer), pp.Dialogue.from_messages(turns)
    whole = tokenizer.decode(template.encode(dialogue).input_ids)
    assert '"name": "rm"' in whole
    assert r"a \"b\"" in whole
    assert learned(template, dialogue)[0].startswith('{"name"')
    turns[3]["reasoning_content"] = "It is gone."
    with pytest.raises(pp.PersonaProbeError, match=r"leaves out reasoning_content \('It is gone.'\) of message 3"):
        template.encode(pp.Dialogue.from_messages(turns))


HEADERLESS = {
    "no header": CHATML.split("{% if add_generation_prompt")[0],
    "another header": CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>model\n{% endif"),
    "half a header": CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>{% endif"),
}


@pytest.mark.parametrize("broken", HEADERLESS)
def test_a_template_that_asks_in_another_way_than_it_writes_answers_is_refused_before_anything_is_asked(broken):
    tokenizer = tokenizer_of(SHAPES["chatml"])
    tokenizer.chat_template = HEADERLESS[broken]
    template = ChatTemplate(tokenizer)
    for dialogue in (chat(ASK), chat(ASK, SAID)):
        with pytest.raises(
            pp.PersonaProbeError, match=r"assistant header|where an answer is asked for|header it writes|once"
        ):
            template.encode(dialogue)
    assert any("asked for" in remark for remark in template.remarks())


@pytest.mark.parametrize("ending", ["A: ", "A:\n", "A: \n"])
def test_white_space_at_the_end_of_the_header_leaves_the_prompt_s_tokens_as_they_are_asked(ending):
    words = Shape(
        f"{{% for m in messages %}}{{{{ 'Q: ' if m.role == 'user' else '{ending}' }}}}{{{{ m.content }}}}\n"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{ending}{{% endif %}}",
        (),
        None,
        "",
    )
    template = ChatTemplate(tokenizer_of(words))
    for answer in ("Bread.", "\nBread.", " sure"):
        asked, said = template.encode(chat(ASK)), template.encode(chat(ASK, ("assistant", answer)))
        assert said.input_ids[: len(asked.input_ids)] == asked.input_ids
        assert template.tokenizer.decode(said.input_ids[said.span("response")]).strip() == answer.strip()


@pytest.mark.parametrize(
    "head",
    [
        "{{ strftime_now('%Y-%m-%d') }}",
        "{{ strftime_now(format='%Y-%m-%d') }}",
        "{% set f = '%Y-%m-%d' %}{{ strftime_now(f) }}",
        "{% macro day() %}{{ strftime_now('%Y') ~ '-' ~ strftime_now('%m-%d') }}{% endmacro %}{{ day() }}",
        "{{ strftime_now('%d/%m/%Y %% ').split('/') | reverse | join('-') }}",
        "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}",
        "{{ strftime_now('%F') }}",
        "{{ strftime_now('%C%y-%m-%d') }}",
    ],
)
def test_a_template_is_told_the_day_however_it_asks(head):
    tokenizer = tokenizer_of(SHAPES["chatml"])
    tokenizer.chat_template = head + CHATML
    text = ChatTemplate(tokenizer, today=datetime.date(2020, 1, 2)).render(chat(ASK))
    assert text.startswith(("2020-01-02<", "2020 % -01-02<"))
    assert "<|im_start|>user\nWhat" in text


def test_a_day_for_a_template_that_never_asks_for_it_is_refused():
    with pytest.raises(pp.PersonaProbeError, match=r"today=2020-01-02 was given, but the chat template.*never asks"):
        ChatTemplate(tokenizer_of(SHAPES["chatml"]), today=datetime.date(2020, 1, 2))


def test_half_a_character_and_an_answer_without_a_question_are_refused_with_the_dialogue_s_name(template):
    half = chat(ASK, id="cut").with_answer("Bread \ud83c")
    with pytest.raises(pp.PersonaProbeError, match=r"'cut': .*half of a surrogate pair"):
        template.encode(half)
    with pytest.raises(pp.PersonaProbeError, match="has an answer only"):
        template.encode(chat(SAID))


def test_a_thought_around_answers_is_not_the_end_of_one():
    thinking = CHATML.replace(
        "{{ m['content'] }}<", "{{ '<think></think>' if m.role == 'assistant' }}{{ m['content'] }}<"
    ).replace("assistant\n{% endif", "assistant\n<think></think>{% endif")
    tokenizer = tokenizer_of(SHAPES["chatml"])
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = thinking
    template = ChatTemplate(tokenizer)
    assert set(template.format.control.values()) == {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
    assert learned(template, chat(ASK, SAID, ASK, SAID)) == ["Bread.<|im_end|>"] * 2
