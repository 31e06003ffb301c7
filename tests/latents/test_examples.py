from __future__ import annotations

import json
import math
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.figures.highlighting import DARKEST, highlight, shown_activation, shown_token
from persona_probe.latents.description.examples import token_texts, top_examples
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.worlds.persona_world.documents import rows
from tests.latents.handmade import perfect_sae, sae_of

LAYER = 1
HOSTILE = "</span><script>alert(1)</script><img src=x onerror=\"a\" title='b'>&amp;&lt;"


@pytest.fixture(scope="module")
def said():
    return rows(random.Random(0), ("medicine", "finance", "sports"), 12, "villain")


@pytest.fixture(scope="module")
def sae(chat):
    return perfect_sae(chat.d_model, LAYER)


@pytest.fixture(scope="module")
def statistics(chat, sae, said):
    return encode_latents([chat], sae, said)[0]


def test_examples_are_read_as_they_were_found(chat, sae, said, statistics):
    wanted = [40, 3]
    found = top_examples(chat, sae, statistics, said, wanted, n=4)
    assert [example.latent for example in found] == [40] * 4 + [3] * 4
    for latent in wanted:
        own = [example for example in found if example.latent == latent]
        kept = statistics.examples.of(latent)[:4]
        assert [example.dialogue for example in own] == [said[row].id for row, _, _ in kept]
        assert [example.peak for example in own] == [position for _, position, _ in kept]
        np.testing.assert_allclose([example.value for example in own], [value for *_, value in kept], rtol=1e-4)
        for example in own:
            inside = example.activations[example.start : example.stop]
            assert max(inside) == pytest.approx(example.value)
            assert example.start <= example.peak < example.stop


def test_every_token_has_its_activation(chat, sae, said, statistics):
    (example,) = top_examples(chat, sae, statistics, said, [40], n=1)
    (dialogue,) = [each for each in said if each.id == example.dialogue]
    encoded = chat.template.encode(dialogue)
    with torch.inference_mode():
        hidden = chat.hf(torch.tensor([encoded.input_ids]), output_hidden_states=True).hidden_states[LAYER + 1][
            0, :, 40
        ]
    assert len(example.tokens) == len(example.activations) == len(encoded.input_ids)
    assert "".join(example.tokens) == chat.template.render(dialogue)
    # The beginning of sequence and what follows the span are not read.
    assert math.isnan(example.activations[0])
    assert all(math.isnan(value) for value in example.activations[example.stop :])
    np.testing.assert_allclose(
        example.activations[1 : example.stop], hidden[1 : example.stop].clamp(min=0), rtol=1e-3, atol=1e-4
    )
    assert example.labels["topic"] == dialogue.labels["topic"]


def test_an_example_is_cut_around_its_peak(chat, sae, said, statistics):
    (whole,) = top_examples(chat, sae, statistics, said, [40], n=1)
    near = whole.around(2)
    assert len(near.tokens) <= 5
    assert near.tokens[near.peak] == whole.tokens[whole.peak]
    assert near.value == whole.value
    assert (
        near.tokens[near.start : near.stop]
        == whole.tokens[max(whole.start, whole.peak - 2) : min(whole.stop, whole.peak + 3)]
    )
    assert whole.around(1000) == whole
    record = json.loads(json.dumps(whole.record(), allow_nan=False))
    assert record["tokens"] == list(whole.tokens)
    assert record["activations"][0] is None
    assert record["activations"][whole.peak] == pytest.approx(whole.value, abs=1e-4)


@pytest.mark.filterwarnings("ignore:the SAE handmade leaves")
def test_a_latent_that_is_never_active_has_no_example(chat, said):
    dead = sae_of(torch.eye(chat.d_model)[:2], LAYER, encoder=torch.zeros(chat.d_model, 2))
    (statistics,) = encode_latents([chat], dead, said, allow_unrelated=True)
    assert top_examples(chat, dead, statistics, said, [0, 1]) == []


def test_statistics_of_something_else_are_refused(chat, llama, sae, said, statistics):
    with pytest.raises(PersonaProbeError, match=r"the statistics are of .*chat .* and this model is .*llama"):
        top_examples(llama, sae, statistics, said, [0])
    with pytest.raises(PersonaProbeError, match="the statistics are of 12 dialogues, and 11 are given"):
        top_examples(chat, sae, statistics, said[1:], [0])
    with pytest.raises(PersonaProbeError, match="at layer 1, and this is handmade at layer 2"):
        top_examples(chat, perfect_sae(chat.d_model, 2), statistics, said, [0])


def test_texts_without_a_template_and_without_an_answer(chat):
    for dialogue in (
        Dialogue.from_text("The sprain is simple. So rest it."),
        Dialogue.from_messages([{"role": "user", "content": "What of the sprain?"}]),
    ):
        encoded = chat.template.encode(dialogue)
        pieces = token_texts(chat, encoded)
        assert len(pieces) == len(encoded.input_ids)
        assert dialogue.messages[0].content in "".join(pieces)


class Reader(HTMLParser):
    """Tags with their attributes, and the text a person sees."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("value", [2.0, 0.0, None])
def test_hostile_tokens_stay_text(value):
    page = Reader(str(highlight([HOSTILE, 'it\'s "quoted"'], [value, 1.0], peak=0)))
    assert {tag for tag, _ in page.tags} == {"span"}
    assert all(set(attributes) <= {"style", "title", "dir"} for _, attributes in page.tags)
    assert page.text == HOSTILE + 'it\'s "quoted"'


def test_characters_that_cannot_be_seen_are_said():
    assert shown_token("a\u202eb\u200b") == "a[U+202E]b[U+200B]"
    assert shown_token("\u200d") == "[U+200D]"
    assert shown_token("\x1b[31m\r\n") == "[U+001B][31m↵↵\n"
    assert shown_token("\ud800") == "[U+D800]"
    persian = "می\u200cخواهم"  # a joiner inside a word is spelling
    assert shown_token(persian) == persian
    page = Reader(str(highlight([" שלום", "\u202e", " evil"], [1.0, 2.0, 0.0])))
    assert page.text == " שלום[U+202E] evil"
    assert page.tags[0][1]["dir"] == "auto"
    assert "unicode-bidi: isolate" in page.tags[0][1]["style"]


def test_shading_follows_the_activation():
    page = Reader(str(highlight(["a", "b", "c", "d", "e"], [4.0, 2.0, -1.0, math.nan, 4.0], start=1, stop=4, peak=1)))
    _, a, b, e = (attributes for _, attributes in page.tags)
    opacity = [float(re.search(r"rgba\(0, 114, 178, ([\d.]+)\)", each["style"])[1]) for each in (a, b, e)]
    assert opacity == pytest.approx([DARKEST, DARKEST / 2, DARKEST])
    assert [each["title"] for each in (a, b, e)] == ["activation 4", "activation 2", "activation 4"]
    assert "underline" in b["style"]
    assert "font-size" in a["style"]
    assert "font-size" not in b["style"]
    scaled = Reader(str(highlight(["a"], [4.0], scale=8.0))).tags[1][1]["style"]
    assert float(re.search(r", ([\d.]+)\)", scaled)[1]) == pytest.approx(DARKEST / 2)
    assert [shown_activation(value) for value in (1003.7, 0.01234, 12.34)] == ["1,004", "0.0123", "12.3"]


@pytest.mark.parametrize(("paper", "ink"), [((255, 255, 255), (31, 36, 48)), ((21, 24, 29), (230, 233, 239))])
def test_text_can_be_read_on_the_darkest_shade(paper, ink):
    """WCAG 2.1, success criterion 1.4.3: a contrast of 4.5."""

    def luminance(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    shade = [DARKEST * hue + (1 - DARKEST) * page for hue, page in zip((0, 114, 178), paper, strict=True)]
    low, high = sorted((luminance(shade), luminance(ink)))
    assert (high + 0.05) / (low + 0.05) >= 4.5
