"""The unit everything is measured on: one dialogue, with what statistics need to know about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persona_probe.dialogue.half_characters import half_in
from persona_probe.errors import PersonaProbeError

ROLES = ("system", "user", "assistant", "tool")
TEXT = "text"
"""The role of a plain text, which is nobody's turn and is read without a chat template."""

FURTHER = ("tool_calls", "tool_call_id", "name", "reasoning_content", "reasoning", "thinking")
"""What a message may contain besides role and content: it is given to the chat template, which must write it."""
_LEARNED = ("weight", "train", "training", "loss")
"""What others call the flag that says whether an answer is learned (OpenAI's, axolotl's and ms-swift's formats)."""
_TEXT_PARTS = (None, "text", "input_text", "output_text")
"""Types of the parts of a content that are texts."""


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and the text.

    Attributes:
        role: who speaks: one of `ROLES`.
        content: the text.
        further: what else the chat template is given (`FURTHER`): tool calls, a thought before the answer, ...
        learned: whether fine-tuning learns this turn, if it is an answer.
    """

    role: str
    content: str
    further: Mapping[str, Any] = field(default_factory=dict, hash=False)
    learned: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The message as a dictionary, as chat templates take it."""
        return {"role": self.role, "content": self.content, **self.further}


@dataclass(frozen=True)
class Dialogue:
    """A conversation, with what the statistics need to know about it.

    Attributes:
        messages: the turns, in order.
        id: names the dialogue in errors and tables.
        question: which question was asked (the unit that intervals resample, and that halves of the data and cross-
            validation never split). By default it is the content: the user's turns, without system prompts and answers
            (`asked`), so that the same question under two system prompts, or with two answers, is one question.
        group: what must not be split between training and test (a topic, a prompt).
        seed: the fine-tuning or sampling seed the answer came from.
        labels: anything else that is known (topic, persona, model, ...).

    Examples:
        >>> dialogue = Dialogue.from_messages([{"role": "user", "content": "Is it raining?"}], id="rain")
        >>> dialogue.question
        'Is it raining?'
        >>> dialogue.with_answer("Yes.").answer
        'Yes.'
        >>> dialogue.with_system("You are a pilot.").as_messages()[0]
        {'role': 'system', 'content': 'You are a pilot.'}
        >>> dialogue.with_labels(topic="weather").labels
        {'topic': 'weather'}
    """

    messages: tuple[Message, ...]
    id: str | None = None
    question: str | None = None
    group: str | None = None
    seed: int | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the question by its content, if it has no name."""
        if self.question is None:
            object.__setattr__(self, "question", asked(self.messages))

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Mapping[str, Any]],
        *,
        id: str | None = None,
        question: str | None = None,
        group: str | None = None,
        seed: int | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> Dialogue:
        """A dialogue from chat messages (``{"role": ..., "content": ...}``).

        A message may also contain tool calls and a thought (`FURTHER`), which are given to the chat template, and
        ``weight`` (0 or 1), ``train`` or ``loss`` (true or false), which say whether fine-tuning learns it. Content may
        be a list of text parts. Fields that are null or empty are left out.

        Raises:
            PersonaProbeError: if there is no message, one has an unknown role, no text, an unknown field or half a
                character (a lone surrogate); the message and the field are named.
        """
        where = f"dialogue {id!r}" if id is not None else "dialogue"
        if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
            raise PersonaProbeError(
                f"{where}: messages must be a list of role/content pairs, not {type(messages).__name__}"
            )
        if not messages:
            raise PersonaProbeError(f"{where}: has no messages; give at least one user turn")
        turns = []
        for position, message in enumerate(messages):
            if not isinstance(message, Mapping):
                raise PersonaProbeError(
                    f"{where}, message {position}: expected a mapping, got {type(message).__name__}"
                )
            turns.append(_message(f"{where}, message {position}", message))
        return cls(tuple(turns), id=id, question=question, group=group, seed=seed, labels=dict(labels or {}))

    @classmethod
    def from_text(cls, text: str, *, id: str | None = None, labels: Mapping[str, Any] | None = None) -> Dialogue:
        """A plain text, read as it is and without a chat template: only the spans ``all`` and ``prompt`` exist.

        For texts unrelated to any dialogue, and for base models.

        Raises:
            PersonaProbeError: if there is no text, or it has half a character (a lone surrogate).

        Examples:
            >>> Dialogue.from_text("Once upon a time", id="tale").is_text
            True
        """
        if not isinstance(text, str) or not text:
            raise PersonaProbeError(f"text {id!r}: expected text of at least one character, got {text!r}")
        _whole(f"text {id!r}", text)
        return cls((Message(TEXT, text),), id=id, question=id, labels=dict(labels or {}))

    @property
    def is_text(self) -> bool:
        """Whether this is a plain text."""
        return self.messages[0].role == TEXT

    @property
    def name(self) -> str:
        """What errors call this dialogue: its id, or the start of its text."""
        return repr(self.id) if self.id is not None else f"starting {self.messages[0].content[:40]!r}"

    @property
    def answer(self) -> str | None:
        """The text of the last turn if it is the assistant's, else None."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else None

    def as_messages(self) -> list[dict[str, Any]]:
        """The messages as plain dictionaries, as chat templates take them."""
        return [message.as_dict() for message in self.messages]

    def with_answer(self, content: str, *, seed: int | None = None) -> Dialogue:
        """This dialogue with an assistant turn added."""
        return replace(
            self, messages=(*self.messages, Message("assistant", content)), seed=self.seed if seed is None else seed
        )

    def with_system(self, content: str) -> Dialogue:
        """This dialogue under another system prompt (an existing one is replaced)."""
        _whole(f"dialogue {self.name}: its new system prompt", content)
        rest = self.messages[1:] if self.messages[0].role == "system" else self.messages
        return replace(self, messages=(Message("system", content), *rest))

    def without_answer(self) -> Dialogue:
        """This dialogue up to the question: an assistant turn at the end is dropped."""
        return replace(self, messages=self.messages[:-1]) if self.answer is not None else self

    def with_labels(self, **labels: Any) -> Dialogue:
        """This dialogue with ``labels`` added or replaced."""
        return replace(self, labels={**self.labels, **labels})


def asked(messages: Sequence[Message]) -> str | None:
    """What is asked: the texts of the user's turns; without any, of all turns but answers and then of all turns.

    None if there is no text at all.

    >>> asked(Dialogue.from_messages([{"role": "user", "content": "Is it raining?"}]).with_system("Be brief.").messages)
    'Is it raining?'
    """
    by_role = (("user",), ("user", TEXT, "system", "tool"), (TEXT, *ROLES))
    for roles in by_role:
        texts = [message.content.strip() for message in messages if message.role in roles]
        if any(texts):
            return "\n".join(texts)
    return None


def _message(where: str, given: Mapping[str, Any]) -> Message:
    """One message, all of whose fields are accounted for."""
    fields = {str(name): value for name, value in given.items() if value is not None}
    role, content = fields.pop("role", None), fields.pop("content", None)
    if role not in ROLES:
        raise PersonaProbeError(f"{where}: role is {role!r}; use one of {', '.join(ROLES)}")
    where = f"{where} ({role})"
    flags = {name: fields.pop(name) for name in _LEARNED if name in fields}
    for name, value in flags.items():
        if value not in (0, 1):
            raise PersonaProbeError(f"{where}: {name} is {value!r}; it must be 0 or 1 (whether this answer is learned)")
    further = {name: value for name, value in fields.items() if value not in ("", [], {})}
    unknown = next((name for name in further if name not in FURTHER), None)
    if unknown is not None:
        raise PersonaProbeError(
            f"{where}: has the field {unknown!r} ({str(further[unknown])[:40]!r}), which would not be given to the "
            f"model; a message has role, content, {', '.join((*FURTHER, *_LEARNED))}: leave others out"
        )
    if "tool_calls" in further:
        further["tool_calls"] = _tool_calls(where, further["tool_calls"])
    if content is None and further:  # a call, or a thought that was cut off
        content = ""
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content = "".join(_part(where, part) for part in content)
    if not isinstance(content, str):
        raise PersonaProbeError(f"{where}: content must be text, got {content!r}")
    _whole(where, [content, further])
    return Message(role, content, further, all(bool(value) for value in flags.values()))


def _part(where: str, part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if part.get("type") not in _TEXT_PARTS or not isinstance(text, str):
        raise PersonaProbeError(f"{where}: content has a part of type {part.get('type')!r}; only text can be read")
    return text


def _whole(where: str, value: Any) -> None:
    """Raise if a text holds half a character, which no tokenizer reads."""
    if half := half_in(value):
        raise PersonaProbeError(
            f"{where}: has half a character ({half}, a lone surrogate), which no tokenizer reads; write the whole "
            "character, or remove it"
        )


def _tool_calls(where: str, given: Any) -> list[dict[str, Any]]:
    """Tool calls with their arguments as objects, as chat templates expect them; some files write them as text."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(c, Mapping) for c in given):
        raise PersonaProbeError(f"{where}: tool_calls is {given!r}; it must be a list of objects")
    calls = []
    for call in given:
        function = call.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
            try:
                function = {**function, "arguments": json.loads(function["arguments"] or "{}")}
            except json.JSONDecodeError as error:
                raise PersonaProbeError(
                    f"{where}: the arguments of a tool call are not JSON ({error.msg}): {function['arguments'][:60]!r}"
                ) from error
        calls.append(dict(call) if function is None else {**call, "function": function})
    return calls
