"""From a dialogue to token ids and spans, by the chat template's own text and the tokenizer's own offsets.

The prompt's rendering (with the assistant header) must be a prefix of the whole dialogue's rendering; the tokenizer's
offsets then say which tokens are prompt and which are the answer. Nothing is searched for in the text.

What templates would decide by themselves is fixed and stated: thinking is off unless asked for, and "today" is one
stated day.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError

_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""What templates call the variable that turns reasoning before the answer on and off (Qwen3 and others; Granite)."""

_TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")

Span = Literal["prompt", "response", "last_prompt_token", "generation", "all"]
SPANS: tuple[str, ...] = get_args(Span)


def check_span(span: str) -> Span:
    """``span``, if it exists; otherwise an error that lists the spans that exist.

    Examples:
        >>> check_span("generation")
        'generation'
    """
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


class ChatTemplate:
    """A tokenizer's chat template, with everything that it would otherwise decide by itself.

    Attributes:
        tokenizer: whose template is rendered; a template set on it later is used.
        thinking: whether templates that know a switch for it let the model reason before it answers.
        today: the day given to templates that write today's date (Llama 3.2, gpt-oss).
        variables: further variables for the template.
        notes: sentences for `remarks` on where tokenizer and template come from, set when a model is loaded.
        embedding_rows: how many tokens the model has embeddings of, set when a model is loaded.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        thinking: bool | None = None,
        today: datetime.date | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.today = today or datetime.datetime.now(datetime.UTC).date()
        self.variables = dict(variables or {})
        self.thinking = bool(thinking)
        self.notes: list[str] = []
        self.embedding_rows: int | None = None
        if thinking is not None and self.exists and self._thinking_switch is None:
            raise PersonaProbeError(
                f"thinking={thinking} was asked for, but the chat template of {tokenizer.name_or_path or 'this model'} "
                f"has no switch for it (looked for {' and '.join(_THINKING_SWITCHES)}); leave it out"
            )

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def _thinking_switch(self) -> str | None:
        return next((name for name in _THINKING_SWITCHES if self._mentions(name)), None)

    def _mentions(self, name: str) -> bool:
        return re.search(rf"\b{name}\b", str(self.tokenizer.chat_template)) is not None

    @property
    def written_date(self) -> datetime.date | None:
        """The day that the template writes into every dialogue, or None if it writes none."""
        return self.today if self.exists and self._mentions("strftime_now") else None

    def _arguments(self) -> dict[str, Any]:
        """What the template is given in addition to the messages."""
        switch = self._thinking_switch
        return ({switch: self.thinking} if switch else {}) | self.variables

    def _dated(self) -> str | None:
        """The template with today's date written in, if it asks for it; None to use the tokenizer's unchanged."""
        if self.written_date is None:
            return None
        template: str = self.tokenizer.get_chat_template()
        return _TODAY.sub(lambda call: repr(self.today.strftime(call["format"])), template)

    def hash(self) -> str | None:
        """Sixteen hex digits of the template and what it is given (except the day), or None without a template."""
        if not self.exists:
            return None
        given = self._arguments()
        text = str(self.tokenizer.chat_template) + (json.dumps(given, sort_keys=True, default=str) if given else "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def remarks(self) -> list[str]:
        """What the template does that a reader of the results should know, in sentences."""
        remarks = list(self.notes)
        if not self.exists:
            return remarks
        if (prompt := self.default_system_prompt) is not None:
            remarks.append(f"the chat template adds a system prompt by itself: {prompt!r}")
        if self._thinking_switch:
            remarks.append(f"thinking is {'on' if self.thinking else 'off'} (thinking=)")
        if (day := self.written_date) is not None:
            remarks.append(f"the chat template writes today's date; it is told {day.isoformat()} (today=)")
        return remarks

    def render(self, dialogue: Dialogue, *, generation_prompt: bool = False) -> str:
        """The template's text of ``dialogue``; ``generation_prompt`` adds the assistant header.

        Raises:
            PersonaProbeError: if the tokenizer has no chat template, or the template refuses the dialogue.
        """
        if dialogue.is_text:
            if len(dialogue.messages) > 1:
                raise PersonaProbeError(
                    f"dialogue {dialogue.name}: is a plain text with turns after it, which no template can render; "
                    "make all of it one text, or a dialogue from its first turn on"
                )
            return dialogue.messages[0].content
        if not self.exists:
            raise PersonaProbeError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no chat template, so dialogues "
                "cannot be rendered; set model.tokenizer.chat_template, or use the chat version of the model"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                dialogue.as_messages(),
                chat_template=self._dated(),
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._arguments(),
            )
        except Exception as error:
            raise PersonaProbeError(f"dialogue {dialogue.name}: the chat template refuses it: {error}") from error
        return cast(str, text)

    def encode(self, dialogue: Dialogue) -> Encoded:
        """Tokenize ``dialogue`` and find where its answer begins and ends.

        Raises:
            PersonaProbeError: if the template's rendering of the prompt is not a prefix of the whole (then spans would
                be guesses), or one token covers the border between prompt and answer; the dialogue is named.
        """
        if not self.tokenizer.is_fast:
            raise PersonaProbeError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} is {type(self.tokenizer).__name__}, "
                "which gives no character offsets, so spans cannot be found; load a fast tokenizer (tokenizers library)"
            )
        if dialogue.is_text:
            ids = tuple(self.tokenizer(self.render(dialogue)).input_ids)
            return Encoded(dialogue, ids, len(ids), len(ids))
        prompt = self.render(dialogue.without_answer(), generation_prompt=True)
        if dialogue.answer is None:
            ids = tuple(self.tokenizer(prompt, add_special_tokens=False).input_ids)
            self._check_beginning(dialogue, ids)
            return Encoded(dialogue, ids, len(ids), len(ids))
        whole = self.render(dialogue)
        if not whole.startswith(prompt):
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: the chat template renders the prompt differently once the answer is there, "
                f"so the answer's tokens cannot be identified (prompt ends {prompt[-60:]!r}); use another template"
            )
        rest = whole[len(prompt) :]
        content = next((text for text in (dialogue.answer, dialogue.answer.strip()) if rest.startswith(text)), None)
        if content is None:
            hint = (
                "; thinking is on, so each answer must begin with the thought, as the model wrote it, or load the "
                "model with thinking=False"
                if self._thinking_switch and self.thinking
                else ""
            )
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: the chat template changes the answer's text (after the header it writes "
                f"{rest[:60]!r}), so its tokens cannot be identified{hint}"
            )
        encoding = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        offsets: list[tuple[int, int]] = encoding["offset_mapping"]
        self._check_beginning(dialogue, encoding["input_ids"])
        border, end = len(prompt), len(prompt) + len(content)
        first = next((i for i, (_, stop) in enumerate(offsets) if stop > border), len(offsets))
        last = next((i for i, (start, stop) in enumerate(offsets) if i >= first and (start >= end or stop > end)), None)
        if first < len(offsets) and offsets[first][0] < border:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: token {first} holds the end of the prompt and the start of the answer; "
                "the answer's tokens cannot be identified with this tokenizer"
            )
        return Encoded(dialogue, tuple(encoding["input_ids"]), first, len(offsets) if last is None else last)

    def _check_beginning(self, dialogue: Dialogue, ids: Sequence[int]) -> None:
        """Raise if a rendering begins with two beginning-of-sequence tokens, or lacks one that the tokenizer adds."""
        begin = self.tokenizer.bos_token_id
        if begin is None or not ids:
            return
        if list(ids[:2]) == [begin, begin]:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: the chat template writes the beginning-of-sequence token twice; "
                "mend the template"
            )
        if ids[0] != begin and self.tokenizer("a").input_ids[:1] == [begin]:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: the chat template writes no beginning-of-sequence token, though this "
                "tokenizer begins every text with one; put {{ bos_token }} at the start of the template"
            )

    def encode_all(self, dialogues: Sequence[Dialogue]) -> list[Encoded]:
        """`encode` for many dialogues; an empty list is refused."""
        if not dialogues:
            raise PersonaProbeError("there are no dialogues: the list is empty")
        return [self.encode(dialogue) for dialogue in dialogues]

    @property
    def default_system_prompt(self) -> str | None:
        """The system prompt that the template adds by itself when a dialogue has none (Qwen2.5's does), or None."""
        if not self.exists:
            return None
        mark, asked = "\u2063mark\u2063", "\u2063system\u2063"
        user = Dialogue.from_messages([{"role": "user", "content": mark}])
        try:
            bare = self.render(user).split(mark)[0]
            before, after = self.render(user.with_system(asked)).split(mark)[0].split(asked)
        except (PersonaProbeError, ValueError):
            return None
        if bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after):
            return bare[len(before) : len(bare) - len(after)]
        return None
