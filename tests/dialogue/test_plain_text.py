import pytest

import persona_probe as pp


def test_a_plain_text_is_read_as_it_stands(llama):
    text = pp.Dialogue.from_text("What is the best way to rest?", id="a")
    encoded = llama.template.encode(text)
    assert list(encoded.input_ids) == llama.tokenizer(text.messages[0].content).input_ids
    assert encoded.span("all") == encoded.span("prompt") == slice(0, len(encoded.input_ids))
    with pytest.raises(pp.PersonaProbeError, match="no assistant answer"):
        encoded.span("response")
    read = pp.capture(llama, [text], span="all", reduce="tokens")
    assert len(read) == len(encoded.input_ids)


def test_texts_that_are_none_are_refused(llama):
    with pytest.raises(pp.PersonaProbeError, match="at least one character"):
        pp.Dialogue.from_text("", id="a")
    with pytest.raises(pp.PersonaProbeError, match="plain text with turns after it"):
        llama.template.encode(pp.Dialogue.from_text("Hello", id="a").with_answer("World"))
