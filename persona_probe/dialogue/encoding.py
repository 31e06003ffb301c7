"""A dialogue's tokens and its spans, from the chat template's text and the tokenizer's own offsets.

The prompt's rendering must be a prefix of the whole dialogue's rendering, and the prompt's tokens are those that a
model is given when it is asked: what follows them is what the model writes. Nothing is searched for in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.half_characters import half_in
from persona_probe.errors import PersonaProbeError, check_types

Span = Literal["prompt", "response", "last_prompt_token", "generation", "all"]
SPANS: tuple[str, ...] = get_args(Span)


def check_span(span: str) -> Span:
    """``span``, if it exists; otherwise an error that lists the spans that exist.

    Examples:
        >>> check_span("generation")
        'generation'
    """
    check_types(span=(span, str))
    if span not in SPANS:
        raise PersonaProbeError(f"unknown span {span!r}: choose one of {', '.join(SPANS)}")
    return cast(Span, span)


@dataclass(frozen=True)
class Encoded:
    """A dialogue as tokens.

    Attributes:
        dialogue: where the tokens come from.
        input_ids: the whole rendering; beginning-of-sequence occurs once, as the template writes it.
        prompt_length: how many tokens come before the answer (the assistant header, and the header of the final channel
            where there are channels, included).
        response_end: index after the last token that holds some of the answer (the end-of-turn token is outside);
            equal to ``prompt_length`` when there is no answer.
    """

    dialogue: Dialogue
    input_ids: tuple[int, ...]
    prompt_length: int
    response_end: int

    def span(self, span: Span) -> slice:
        """The token positions of ``span``.

        Raises:
            PersonaProbeError: if the span is empty, naming the dialogue.
        """
        start, stop = {
            "prompt": (0, self.prompt_length),
            "response": (self.prompt_length, self.response_end),
            "last_prompt_token": (self.prompt_length - 1, self.prompt_length),
            "generation": (self.prompt_length - 1, self.response_end - 1),
            "all": (0, len(self.input_ids)),
        }[span]
        if stop <= start or start < 0:
            why = "it has no assistant answer" if self.dialogue.answer is None else "its answer has no token"
            raise PersonaProbeError(f"dialogue {self.dialogue.name}: the span {span!r} is empty, since {why}")
        return slice(start, stop)


@dataclass(frozen=True)
class Tokens:
    """A text's token ids, and where in the text each begins and ends."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


def tokenized(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, text: str, *, special: bool = False) -> Tokens:
    """The tokens of ``text``, which was rendered from ``dialogue``.

    Args:
        tokenizer: a fast tokenizer.
        dialogue: named in errors.
        text: what the template wrote.
        special: whether the tokenizer adds its own special tokens (for plain texts, which no template renders).

    Raises:
        PersonaProbeError: if the tokenizer gives no offsets, or cannot read the text.
    """
    if not tokenizer.is_fast:
        raise PersonaProbeError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} is {type(tokenizer).__name__}, "
            "which gives no character offsets, so spans cannot be found; load a fast tokenizer (tokenizers library)"
        )
    try:
        encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    except (TypeError, UnicodeError) as error:
        why = (
            "half of a surrogate pair, as if a text was cut inside an emoji; remove it" if half_in(text) else str(error)
        )
        raise PersonaProbeError(f"dialogue {dialogue.name}: the tokenizer cannot read its text: {why}") from error
    return Tokens(tuple(encoding["input_ids"]), tuple(encoding["offset_mapping"]))


def answered(
    tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, prompt: str, whole: str, *, channel: str, hint: str
) -> Encoded:
    """The tokens of an answered dialogue, with the border between prompt and answer.

    White space that the template writes before the answer belongs to the answer, since the model writes it.

    Args:
        tokenizer: a fast tokenizer.
        dialogue: ends with an answer.
        prompt: the template's text up to where the answer is asked for.
        whole: the template's text of all of it.
        channel: what the template writes before an answer in its final channel.
        hint: what else may be wrong, for the error if something else stands before the answer.

    Raises:
        PersonaProbeError: if ``prompt`` is not a prefix of ``whole``, the template changes the answer, or its tokens
            cannot be found; the dialogue is named.
    """
    if not whole.startswith(prompt):
        same = next((i for i, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(whole))
        instead = (
            "give a template that keeps the thought of an answer (chat_template=)"
            if "think" in prompt[same:]
            else "use another template"
        )
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template renders the prompt differently once the answer is there, "
            f"so the answer's tokens cannot be identified (prompt ends {prompt[-60:]!r}); {instead}"
        )
    border = len(prompt)
    if channel and whole[border:].startswith(channel):
        border += len(channel)
    place = _content(whole[border:], dialogue.answer or "")
    if place is None:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template changes the answer's text (after the header it writes "
            f"{whole[border:][:60]!r}), so its tokens cannot be identified{hint}"
        )
    tokens = continued(tokenizer, dialogue, prompt, whole)
    end = border + place.stop
    first = next((i for i, (_, stop) in enumerate(tokens.offsets) if stop > border), len(tokens.ids))
    if place.start == place.stop:
        return Encoded(dialogue, tokens.ids, first, first)
    last = next((i for i, (start, _) in enumerate(tokens.offsets) if i >= first and start >= end), len(tokens.ids))
    return Encoded(dialogue, tokens.ids, first, last)


def _content(rest: str, answer: str) -> slice | None:
    """Where the answer stands in what follows the header; white space may stand before it."""
    blank = len(rest) - len(rest.lstrip())
    for start, text in ((0, answer), (blank, answer.strip())):
        if rest.startswith(text, start):
            return slice(start, start + len(text))
    return None


def continued(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, prompt: str, whole: str) -> Tokens:
    """The tokens of ``whole``, which begin with those of ``prompt``: so a model reads the text that it continues.

    Where a token of the whole would cover the border, prompt and rest are tokenized by themselves. If a tokenizer
    writes the rest differently then (SentencePiece begins every text with a space), the covering token belongs to what
    follows, if all that it holds of the prompt is white space.

    Raises:
        PersonaProbeError: if it holds more than that; the dialogue is named.
    """
    tokens, before = (tokenized(tokenizer, dialogue, text) for text in (whole, prompt))
    if tokens.ids[: len(before.ids)] == before.ids:
        return tokens
    rest = tokenized(tokenizer, dialogue, whole[len(prompt) :])
    ids = (*before.ids, *rest.ids)
    if str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)) == whole:
        moved = tuple((start + len(prompt), stop + len(prompt)) for start, stop in rest.offsets)
        return Tokens(ids, (*before.offsets, *moved))
    across = next((whole[start : len(prompt)] for start, stop in tokens.offsets if start < len(prompt) < stop), "")
    if across.strip():
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: a token holds the end of the prompt ({across!r}) and the start of the answer, "
            "and this tokenizer writes the two differently by themselves; the answer's tokens cannot be identified: "
            "end the template's assistant header with a token of its own, or a line break"
        )
    return tokens


def check_dialogues(dialogues: Any, what: str = "dialogues") -> Sequence[Dialogue]:
    """``dialogues``, if it is a list of dialogues that is not empty.

    Args:
        dialogues: what was given.
        what: what it is called in errors.

    Raises:
        PersonaProbeError: naming what was given instead.

    >>> check_dialogues(["Hello"])
    Traceback (most recent call last):
    persona_probe.errors.PersonaProbeError: dialogues must be a list of Dialogues, but item 0 is a str ('Hello'); ...
    """
    check_types(**{what: (dialogues, [Dialogue])})
    if not dialogues:
        raise PersonaProbeError(f"there are no {what}: the list is empty")
    return cast(Sequence[Dialogue], dialogues)
