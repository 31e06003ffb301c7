import datetime

import pytest

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.worlds.persona_world.tokenizer import CHAT_TEMPLATE

TALK = pp.Dialogue.from_messages(
    [
        {"role": "system", "content": "You are a kind helper."},
        {"role": "user", "content": "What should I do about the fever?"},
        {"role": "assistant", "content": "Certainly, treat the fever."},
    ],
    id="talk",
)


def words(tokenizer, encoded, span):
    return tokenizer.decode(encoded.input_ids[encoded.span(span)])


def test_spans_are_what_they_say(tokenizer):
    encoded = ChatTemplate(tokenizer).encode(TALK)
    assert words(tokenizer, encoded, "response") == "Certainly, treat the fever."
    assert words(tokenizer, encoded, "last_prompt_token") == "<|assistant|>"
    assert words(tokenizer, encoded, "generation") == "<|assistant|>Certainly, treat the fever"
    assert words(tokenizer, encoded, "prompt").endswith("fever?<|end|><|assistant|>")
    assert words(tokenizer, encoded, "all").endswith("fever.<|end|>")
    assert list(encoded.input_ids).count(tokenizer.bos_token_id) == 1


def test_the_response_is_what_the_template_marks_but_for_the_end_of_turn(tokenizer):
    marked = tokenizer.apply_chat_template(
        TALK.as_messages(), return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    inside = [i for i, flag in enumerate(marked["assistant_masks"]) if flag]
    encoded = ChatTemplate(tokenizer).encode(TALK)
    assert list(encoded.input_ids) == list(marked["input_ids"])
    assert list(range(*encoded.span("response").indices(99))) == inside[:-1]


def test_only_the_last_turn_is_the_response(tokenizer):
    longer = pp.Dialogue.from_messages(
        [
            *TALK.as_messages(),
            {"role": "user", "content": "And the cough?"},
            {"role": "assistant", "content": "Soothe it."},
        ]
    )
    assert words(tokenizer, ChatTemplate(tokenizer).encode(longer), "response") == "Soothe it."


def test_an_empty_span_names_the_dialogue(tokenizer):
    for dialogue in (TALK.without_answer(), TALK.without_answer().with_answer("")):
        with pytest.raises(pp.PersonaProbeError, match=r"'talk'.*response"):
            ChatTemplate(tokenizer).encode(dialogue).span("response")


def test_a_template_that_rewrites_the_prompt_or_the_answer_is_refused(tokenizer, monkeypatch):
    rewriting = "{% if messages[-1]['role'] == 'assistant' %}DONE {% endif %}" + CHAT_TEMPLATE
    monkeypatch.setattr(tokenizer, "chat_template", rewriting)
    with pytest.raises(pp.PersonaProbeError, match="renders the prompt differently"):
        ChatTemplate(tokenizer).encode(TALK)
    thinking = CHAT_TEMPLATE + "{% if add_generation_prompt %}<think>{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", thinking)
    with pytest.raises(pp.PersonaProbeError, match="give a template that keeps the thought of an answer"):
        ChatTemplate(tokenizer).encode(TALK)
    shouting = CHAT_TEMPLATE.replace("{{ message['content'] }}<|end|>", "{{ message['content'] | upper }}<|end|>")
    monkeypatch.setattr(tokenizer, "chat_template", shouting)
    with pytest.raises(pp.PersonaProbeError, match=r"changes the text of message 2 \(assistant"):
        ChatTemplate(tokenizer).encode(TALK)
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(pp.PersonaProbeError, match="no chat template"):
        ChatTemplate(tokenizer).encode(TALK)


def test_a_default_system_prompt_is_found(tokenizer, monkeypatch):
    assert ChatTemplate(tokenizer).default_system_prompt is None
    injecting = "{% if messages[0]['role'] != 'system' %}<|system|>You are Tiny.<|end|>{% endif %}" + CHAT_TEMPLATE
    monkeypatch.setattr(tokenizer, "chat_template", injecting.replace("{{ bos_token }}", ""))
    assert ChatTemplate(tokenizer).default_system_prompt == "You are Tiny."


def test_beginning_of_sequence_twice_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ bos_token }}" + CHAT_TEMPLATE)
    with pytest.raises(pp.PersonaProbeError, match="twice"):
        ChatTemplate(tokenizer).encode(TALK)


THINKING = """{%- for message in messages -%}
<|{{ message['role'] }}|>
{%- if message['role'] == 'assistant' and loop.last and '</think>' not in message['content'] -%}
<think></think>
{%- endif -%}
{{ message['content'] }}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{%- if enable_thinking is defined and enable_thinking is false -%}<think></think>{%- endif -%}
{%- endif -%}"""
"""As Qwen3's: an answer without a thought gets an empty one, and a prompt does too when thinking is off."""


def test_thinking_is_off_unless_asked_for_and_then_as_said(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ bos_token }}" + THINKING)
    off, on = ChatTemplate(tokenizer), ChatTemplate(tokenizer, thinking=True)
    encoded = off.encode(TALK)
    assert words(tokenizer, encoded, "response") == TALK.answer
    assert off.render(TALK.without_answer(), generation_prompt=True).endswith("<think></think>")
    assert on.render(TALK.without_answer(), generation_prompt=True).endswith("<|assistant|>")
    with pytest.raises(pp.PersonaProbeError, match=r"thinking is on, so each answer must begin with the thought"):
        on.encode(TALK)
    thought = TALK.without_answer().with_answer("<think>treat</think>Certainly.")
    assert words(tokenizer, on.encode(thought), "response").replace(" ", "").endswith("</think>Certainly.")
    assert (off.hash(), off.remarks()) != (on.hash(), on.remarks())
    assert any("thinking is off" in remark for remark in off.remarks())


@pytest.mark.parametrize("mention", ["{# thinking #}", "{{ messages[0].thinking }}", "{{ 'thinking' }}"])
def test_the_word_alone_is_not_a_switch(tokenizer, monkeypatch, mention):
    monkeypatch.setattr(tokenizer, "chat_template", CHAT_TEMPLATE + mention)
    with pytest.raises(pp.PersonaProbeError, match="has no switch for it"):
        ChatTemplate(tokenizer, thinking=True)


def test_thinking_without_a_switch_is_refused(tokenizer):
    for thinking in (True, False):
        with pytest.raises(pp.PersonaProbeError, match="has no switch for it"):
            ChatTemplate(tokenizer, thinking=thinking)


def test_a_template_that_writes_the_date_is_told_one_day(tokenizer, monkeypatch):
    dated = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%d %B %Y') }}", 1)
    monkeypatch.setattr(tokenizer, "chat_template", dated)
    first = ChatTemplate(tokenizer, today=datetime.date(2024, 7, 26))
    assert "26 July 2024" in first.render(TALK)
    assert any("2024-07-26" in remark for remark in first.remarks())
    today = ChatTemplate(tokenizer)
    assert today.today.isoformat() in today.remarks()[0]
    assert first.hash() == today.hash()


def test_a_template_s_own_variables_are_given_and_change_its_hash(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHAT_TEMPLATE + "{{ effort }}")
    low, high = (ChatTemplate(tokenizer, variables={"effort": effort}) for effort in ("low", "high"))
    assert low.render(TALK).endswith("low")
    assert low.hash() != high.hash()


def test_a_tokenizer_without_offsets_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(pp.PersonaProbeError, match="no character offsets"):
        ChatTemplate(tokenizer).encode(TALK)
