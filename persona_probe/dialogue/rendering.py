"""A tokenizer's chat template, with what it would decide by itself fixed and stated, and nothing given lost.

Thinking is off unless asked for, "today" is one stated day, and every message must be found in what is rendered.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import re
import string
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jinja2
import jinja2.meta
from transformers import PreTrainedTokenizerBase

from persona_probe.dialogue.chat_format import MARK, ChatFormat, find_format
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, answered, tokenized
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""What templates call the variable that turns reasoning before the answer on and off (Qwen3 and others; Granite)."""
_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set told = namespace(text=format) -%}"
    "{%- for code, value in persona_probe_day.items() -%}"
    "{%- set told.text = told.text.replace(code, value) -%}{%- endfor -%}{{- told.text -}}{%- endmacro +%}"
)
"""In front of a template, this takes the place of the clock that transformers gives to templates."""
_CODES = tuple(f"%{flag}{letter}" for flag in ("-", "") for letter in string.ascii_letters)
_SILENT = re.compile(
    r"(?ms)(?:^[ \t]*)?\{#.*?#\}\n?|(?:\s*\{%-|(?:^[ \t]*)?\{%)\s*(?:end)?generation\s*(?:-%\}\s*|%\}\n?)"
)
"""What a template holds and does not write: comments, and the marks with which TRL finds answers."""
_IDENTIFIERS = ("id", "type", "index", "tool_call_id")
"""Fields that only link messages: a template may leave them out."""


class ChatTemplate:
    """A tokenizer's chat template, with everything that it would otherwise decide by itself.

    Attributes:
        tokenizer: whose template is rendered; a template set on it later is used.
        thinking: whether templates that know a switch for it let the model reason before it answers.
        today: the day given to templates that write today's date (Llama 3.2, gpt-oss).
        variables: further variables for the template.
        notes: sentences for `remarks` on where tokenizer and template come from, set when a model is loaded.
        embedding_rows: how many tokens the model has embeddings of, set when a model is made; None without one.

    Raises:
        PersonaProbeError: if ``thinking`` or ``today`` was asked for, and the template has no place for it.
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
        self._formats: dict[str, ChatFormat] = {}
        self._left_out: dict[tuple[str, bool, tuple[tuple[str, ...], ...]], tuple[int, ...]] = {}
        if thinking is not None and self.exists and self._thinking_switch is None:
            raise PersonaProbeError(
                f"thinking={thinking} was asked for, but the chat template of {tokenizer.name_or_path or 'this model'} "
                f"has no switch for it (looked for {' and '.join(_THINKING_SWITCHES)}); leave it out"
            )
        if today is not None and self.exists and self.written_date is None:
            raise PersonaProbeError(
                f"today={today} was given, but the chat template of {tokenizer.name_or_path or 'this model'} never "
                "asks for the date (strftime_now); leave it out, or give the template's own variable "
                "(template_variables=)"
            )

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def _thinking_switch(self) -> str | None:
        return next((name for name in _THINKING_SWITCHES if self._mentions(name)), None)

    def _mentions(self, name: str) -> bool:
        return name in _variables(str(self.tokenizer.chat_template))

    @property
    def written_date(self) -> datetime.date | None:
        """The day that the template writes into every dialogue, or None if it writes none."""
        return self.today if self.exists and self._mentions("strftime_now") else None

    def _arguments(self) -> dict[str, Any]:
        """What the template is given in addition to the messages, the day left out."""
        switch = self._thinking_switch
        return ({switch: self.thinking} if switch else {}) | self.variables

    def _day(self) -> dict[str, str]:
        """What each code of a date format stands for; a doubled percent sign is put aside while the others are read."""
        return {"%%": MARK, **{code: self.today.strftime(code) for code in _CODES}, MARK: "%"}

    def _written(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool) -> str:
        """What the template writes of ``messages``, whatever it leaves out."""
        dated: dict[str, Any] = {} if self.written_date is None else {"persona_probe_day": self._day()}
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=_CLOCK + self.tokenizer.get_chat_template() if dated else None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._arguments(),
                **dated,
            )
        except Exception as error:
            raise PersonaProbeError(f"the chat template refuses it: {error}") from error
        return cast(str, text)

    @property
    def format(self) -> ChatFormat:
        """What the template writes around turns; without a template only the special tokens are known."""
        key = self._key
        if key not in self._formats:
            self._formats[key] = find_format(self.tokenizer, self._written)
        return self._formats[key]

    @property
    def _key(self) -> str:
        """The template's text, and the tokens that it may name: both can be set on the tokenizer later."""
        return f"{self.tokenizer.chat_template}|{self.tokenizer.special_tokens_map}"

    def hash(self) -> str | None:
        """Sixteen hex digits of what the template writes and is given (except the day), or None without a template."""
        if not self.exists:
            return None
        given = self._arguments()
        text = what_is_written(self.tokenizer.chat_template)
        text += json.dumps(given, sort_keys=True, default=str) if given else ""
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
        if (channel := self.format.channel) != "":
            remarks.append(f"answers are what the model writes after {channel!r}, its final channel")
        if self.format.fault is not None:
            remarks.append(self.format.fault)
        elif self.format.end is None:
            text = self.format.stop_text
            remarks.append(
                "the chat template writes no token that ends an answer: an answer ends at the tokenizer's end of "
                f"sequence{f', or at the text {text!r}' if text else ''}"
            )
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
            return self._written(dialogue.as_messages(), generation_prompt)
        except PersonaProbeError as error:
            raise PersonaProbeError(f"dialogue {dialogue.name}: {error}") from error.__cause__

    def _check_nothing_is_lost(self, dialogue: Dialogue, text: str, generation_prompt: bool) -> None:
        """Raise if a message, or one of its further fields, is not in the template's text."""
        for place in self._without_a_place(dialogue, generation_prompt):
            message = dialogue.messages[place]
            if message.content.strip():
                raise _lost(dialogue, place, "leaves out", message.content)
        for place, message in enumerate(dialogue.messages):
            if message.content.strip() not in text and not _holds(text, message.content):
                raise _lost(dialogue, place, "changes the text of", message.content)
            for name, value in message.further.items():
                for leaf in _leaves(value):
                    if name not in _IDENTIFIERS and not _holds(text, leaf):
                        raise _lost(dialogue, place, f"leaves out {name} ({leaf[:40]!r}) of", message.content)

    def _without_a_place(self, dialogue: Dialogue, generation_prompt: bool) -> tuple[int, ...]:
        """The numbers of the messages whose content the template leaves out, whatever it is.

        Each content is replaced by a mark, so that a short one that occurs elsewhere too is not taken for found.
        """
        turns = tuple((message.role, *message.further) for message in dialogue.messages)
        key = (self._key, generation_prompt, turns)
        if key not in self._left_out:
            marks = [MARK.format(number) for number in range(len(dialogue.messages))]
            marked = [
                message.as_dict() | {"content": mark} for message, mark in zip(dialogue.messages, marks, strict=True)
            ]
            try:
                text = self._written(marked, generation_prompt)
            except PersonaProbeError:  # it looks into the contents; the contents themselves are looked for
                return ()
            self._left_out[key] = tuple(number for number, mark in enumerate(marks) if mark not in text)
        return self._left_out[key]

    def encode(self, dialogue: Dialogue) -> Encoded:
        """Tokenize ``dialogue`` and find where its answer begins and ends.

        Raises:
            PersonaProbeError: as `render`; and if the template leaves out or changes a message, its rendering of the
                prompt is not a prefix of the whole (then spans would be guesses), prompts end in another way than where
                answers begin, or the model has no embedding of a token; the dialogue is named.
        """
        if dialogue.is_text:
            ids = tokenized(self.tokenizer, dialogue, self.render(dialogue), special=True).ids
            self._check_embedded(dialogue, ids)
            return Encoded(dialogue, ids, len(ids), len(ids))
        question = dialogue.without_answer()
        if not question.messages:
            raise PersonaProbeError(f"dialogue {dialogue.name}: has an answer only; put the question before it")
        prompt = self.render(question, generation_prompt=True)
        self._check_nothing_is_lost(question, prompt, generation_prompt=True)
        if dialogue.answer is None:
            if self.format.fault is not None:
                raise PersonaProbeError(
                    f"dialogue {dialogue.name}: {self.format.fault}; mend the template, or give another "
                    "(chat_template=)"
                )
            ids = tokenized(self.tokenizer, dialogue, prompt).ids
            encoded = Encoded(dialogue, ids, len(ids), len(ids))
        else:
            whole = self.render(dialogue)
            self._check_nothing_is_lost(dialogue, whole, generation_prompt=False)
            hint = (
                "; thinking is on, so each answer must begin with the thought, as the model wrote it, or load the "
                "model with thinking=False"
                if self._thinking_switch and self.thinking
                else ""
            )
            encoded = answered(self.tokenizer, dialogue, prompt, whole, channel=self.format.channel, hint=hint)
        self._check_beginning(dialogue, encoded.input_ids)
        self._check_embedded(dialogue, encoded.input_ids)
        return encoded

    def _check_embedded(self, dialogue: Dialogue, ids: Sequence[int]) -> None:
        """Raise if the model has no embedding of one of the tokens."""
        highest = max(ids, default=0)
        if self.embedding_rows is not None and highest >= self.embedding_rows:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: contains {self.tokenizer.convert_ids_to_tokens(highest)!r} (token "
                f"{highest}), of which this model has no embedding (it has {self.embedding_rows}); give the tokenizer "
                "that the model was trained with (tokenizer=)"
            )

    def check_contents(self, dialogues: Sequence[Dialogue]) -> None:
        """Raise if a message contains a text that separates turns: it would be read as the border of a turn.

        Raises:
            PersonaProbeError: naming the dialogue, the message and the text.

        Warns:
            PersonaProbeWarning: if a message contains another special token of the tokenizer as text.
        """
        spoken = [dialogue for dialogue in dialogues if not dialogue.is_text]
        for dialogue in spoken:
            self._check_markers(dialogue)
        self._warn_of_special_tokens(spoken)

    def _check_markers(self, dialogue: Dialogue) -> None:
        for place, message in enumerate(dialogue.messages):
            given = "\n".join([message.content, *_leaves(message.further)])
            marker = next((text for text in self.format.markers if text in given), None)
            if marker is not None:
                raise PersonaProbeError(
                    f"dialogue {dialogue.name}: message {place} ({message.role}) contains {marker!r} as text, which "
                    "the model would read as the border of a turn; remove it, or break it up "
                    f"({marker[0] + ' ' + marker[1:]!r})"
                )

    def _warn_of_special_tokens(self, dialogues: Sequence[Dialogue]) -> None:
        """Warn if contents contain special tokens that do not separate turns (an image's place, a tool's mark)."""
        special = [token for token in self.tokenizer.all_special_tokens if token not in self.format.markers]
        if not special:
            return
        pattern = re.compile("|".join(map(re.escape, special)))
        found = [
            (dialogue, match[0])
            for dialogue in dialogues
            if (match := next(filter(None, (pattern.search(m.content) for m in dialogue.messages)), None))
        ]
        if found:
            warnings.warn(
                f"{len(found)} of {len(dialogues)} dialogues contain special tokens of the tokenizer as text (first: "
                f"{found[0][1]!r} in dialogue {found[0][0].name}): the model reads them as these tokens, not as text",
                PersonaProbeWarning,
                stacklevel=3,
            )

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

    @property
    def default_system_prompt(self) -> str | None:
        """The system prompt that the template adds by itself when a dialogue has none (Qwen2.5's does), or None."""
        if not self.exists:
            return None
        mark, asked = (MARK.format(number) for number in (0, 1))
        user = Dialogue.from_messages([{"role": "user", "content": mark}])
        try:
            bare = self.render(user).split(mark)[0]
            before, after = self.render(user.with_system(asked)).split(mark)[0].split(asked)
        except (PersonaProbeError, ValueError):
            return None
        if bare.startswith(before) and bare.endswith(after) and len(bare) > len(before) + len(after):
            return bare[len(before) : len(bare) - len(after)]
        return None


def what_is_written(template: object) -> str:
    r"""A template's text without what it does not write, so that templates that write the same are the same.

    Examples:
        >>> what_is_written("{# mended #}{% generation %}{{ text }}{% endgeneration %}\n")
        '{{ text }}'
    """
    return _SILENT.sub("", str(template)).removesuffix("\n")


@functools.cache
def _variables(template: str) -> frozenset[str]:
    """What a template asks for: the variables and functions that it does not define itself."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(what_is_written(template))))
    except jinja2.TemplateError:  # rendering it says what is wrong with it
        return frozenset()


def _lost(dialogue: Dialogue, place: int, how: str, content: str) -> PersonaProbeError:
    role = dialogue.messages[place].role
    instead = "put it at the start of the first user turn" if role == "system" else "leave it out of the dialogue"
    return PersonaProbeError(
        f"dialogue {dialogue.name}: the chat template {how} message {place} ({role}, {content[:40]!r}), so that the "
        f"model would not read it as it was given; {instead}, or give another template (chat_template=)"
    )


def _holds(text: str, part: str) -> bool:
    """Whether ``text`` contains ``part``, as it is or as a string in JSON (tool calls, and some tools' replies)."""
    part = part.strip()
    forms = (part, *(json.dumps(part, ensure_ascii=only_ascii)[1:-1] for only_ascii in (False, True)))
    return any(form in text for form in forms)


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers in a further field of a message, with the names of a tool's arguments."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _IDENTIFIERS:
                yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
