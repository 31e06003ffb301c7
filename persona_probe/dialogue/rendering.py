"""From a dialogue to token ids and spans, by the chat template's own text and the tokenizer's own offsets.

The prompt's rendering (with the assistant header) must be a prefix of the whole dialogue's rendering; the tokenizer's
offsets then say which tokens are prompt and which are the answer. Nothing is searched for in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError

Span = Literal["prompt", "response", "last_prompt_token", "generation", "all"]
SPANS: tuple[str, ...] = get_args(Span)


def check_span(span: str) -> Span:
    """Return ``span`` if it exists, else raise an error that lists the spans there are."""
    if span not in SPANS:
        raise PersonaProbeError(f"unknown span {span!r}: choose one of {', '.join(SPANS)}")
    return cast(Span, span)


@dataclass(frozen=True)
class Encoded:
    """A dialogue as tokens.

    Attributes:
        dialogue: where the tokens come from.
        input_ids: the whole rendering; beginning-of-sequence occurs once, as the template writes it.
        prompt_length: how many tokens come before the answer (assistant header included).
        response_end: index after the answer's last content token (the end-of-turn token is outside);
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


def render(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, *, generation_prompt: bool = False) -> str:
    """The chat template's text of ``dialogue``; ``generation_prompt`` adds the assistant header.

    Raises:
        PersonaProbeError: if the tokenizer has no chat template, or the template refuses the dialogue.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise PersonaProbeError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template, so dialogues cannot be "
            "rendered; set model.tokenizer.chat_template, or use the chat version of the model"
        )
    try:
        text = tokenizer.apply_chat_template(
            dialogue.as_messages(), tokenize=False, add_generation_prompt=generation_prompt
        )
    except Exception as error:
        raise PersonaProbeError(f"dialogue {dialogue.name}: the chat template refuses it: {error}") from error
    return cast(str, text)


def encode(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue) -> Encoded:
    """Tokenize ``dialogue`` and find where its answer begins and ends.

    Raises:
        PersonaProbeError: if the template's rendering of the prompt is no prefix of the whole (then spans would be
            guesses), or a token straddles the border between prompt and answer; the dialogue is named.
    """
    prompt = render(tokenizer, dialogue.without_answer(), generation_prompt=True)
    if dialogue.answer is None:
        ids = tuple(tokenizer(prompt, add_special_tokens=False).input_ids)
        _check_beginning(tokenizer, dialogue, ids)
        return Encoded(dialogue, ids, len(ids), len(ids))
    whole = render(tokenizer, dialogue)
    if not whole.startswith(prompt):
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template renders the prompt differently once the answer is there, "
            f"so the answer's tokens cannot be told apart (prompt ends {prompt[-60:]!r}); use another template"
        )
    rest = whole[len(prompt) :]
    content = next((text for text in (dialogue.answer, dialogue.answer.strip()) if rest.startswith(text)), None)
    if content is None:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template changes the answer's text (after the header it writes "
            f"{rest[:60]!r}), so its tokens cannot be told apart"
        )
    encoding = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    offsets: list[tuple[int, int]] = encoding["offset_mapping"]
    _check_beginning(tokenizer, dialogue, encoding["input_ids"])
    border, end = len(prompt), len(prompt) + len(content)
    first = next((i for i, (_, stop) in enumerate(offsets) if stop > border), len(offsets))
    last = next((i for i, (start, stop) in enumerate(offsets) if i >= first and (start >= end or stop > end)), None)
    if first < len(offsets) and offsets[first][0] < border:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: token {first} holds the end of the prompt and the start of the answer; "
            "the answer's tokens cannot be told apart with this tokenizer"
        )
    return Encoded(dialogue, tuple(encoding["input_ids"]), first, len(offsets) if last is None else last)


def _check_beginning(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, ids: Sequence[int]) -> None:
    """Refuse a rendering that begins with two beginning-of-sequence tokens, or lacks one the tokenizer adds."""
    begin = tokenizer.bos_token_id
    if begin is None or not ids:
        return
    if list(ids[:2]) == [begin, begin]:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template writes the beginning-of-sequence token twice; "
            "mend the template"
        )
    if ids[0] != begin and tokenizer("a").input_ids[:1] == [begin]:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template writes no beginning-of-sequence token, though this tokenizer "
            "begins every text with one; put {{ bos_token }} at the start of the template"
        )


def encode_all(tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """`encode` for many; an empty list is refused."""
    if not dialogues:
        raise PersonaProbeError("there are no dialogues: the list is empty")
    return [encode(tokenizer, dialogue) for dialogue in dialogues]


def default_system_prompt(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The system prompt that the chat template adds by itself when a dialogue has none (Qwen's does), or None."""
    mark = "\u2063mark\u2063"
    if not getattr(tokenizer, "chat_template", None):
        return None
    user = Dialogue.from_messages([{"role": "user", "content": mark}])
    try:
        bare = render(tokenizer, user).split(mark)[0]
        before, after = (
            render(tokenizer, user.with_system("\u2063system\u2063")).split(mark)[0].split("\u2063system\u2063")
        )
    except (PersonaProbeError, ValueError):
        return None
    if bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after):
        return bare[len(before) : len(bare) - len(after)]
    return None
