"""The unit everything is measured on: one dialogue, with what statistics need to know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persona_probe.errors import PersonaProbeError

ROLES = ("system", "user", "assistant", "tool")
TEXT = "text"
"""The role of a plain text, which is nobody's turn and is read without a chat template."""


@dataclass(frozen=True)
class Message:
    """One turn: who speaks (``role``), and the text (``content``)."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """The message as a dictionary, as chat templates take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Dialogue:
    """A conversation, with what the statistics need to know about it.

    Attributes:
        messages: the turns, in order.
        id: names the dialogue in errors and tables.
        question: which question was asked (the unit that intervals resample).
        group: what must not be split between training and test (a topic, a prompt).
        seed: the fine-tuning or sampling seed the answer came from.
        labels: anything else that is known (topic, persona, model, ...).

    Examples:
        >>> dialogue = Dialogue.from_messages([{"role": "user", "content": "Is it raining?"}], id="rain")
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

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Mapping[str, str]],
        *,
        id: str | None = None,
        question: str | None = None,
        group: str | None = None,
        seed: int | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> Dialogue:
        """A dialogue from chat messages (``{"role": ..., "content": ...}``).

        Raises:
            ValueError: if there is no message, or one has an unknown role or no text; the message is named.
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
            role, content = message.get("role"), message.get("content")
            if role not in ROLES:
                raise PersonaProbeError(f"{where}, message {position}: role is {role!r}; use one of {', '.join(ROLES)}")
            if not isinstance(content, str):
                raise PersonaProbeError(f"{where}, message {position} ({role}): content must be text, got {content!r}")
            turns.append(Message(role, content))
        return cls(tuple(turns), id=id, question=question, group=group, seed=seed, labels=dict(labels or {}))

    @classmethod
    def from_text(cls, text: str, *, id: str | None = None, labels: Mapping[str, Any] | None = None) -> Dialogue:
        """A plain text, read as it is and without a chat template: only the spans ``all`` and ``prompt`` exist.

        For texts unrelated to any dialogue, and for base models.

        Raises:
            PersonaProbeError: if there is no text.

        Examples:
            >>> Dialogue.from_text("Once upon a time", id="tale").is_text
            True
        """
        if not isinstance(text, str) or not text:
            raise PersonaProbeError(f"text {id!r}: expected text of at least one character, got {text!r}")
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

    def as_messages(self) -> list[dict[str, str]]:
        """The messages as plain dictionaries, as chat templates take them."""
        return [message.as_dict() for message in self.messages]

    def with_answer(self, content: str, *, seed: int | None = None) -> Dialogue:
        """This dialogue with an assistant turn added."""
        return replace(
            self, messages=(*self.messages, Message("assistant", content)), seed=self.seed if seed is None else seed
        )

    def with_system(self, content: str) -> Dialogue:
        """This dialogue under another system prompt (an existing one is replaced)."""
        rest = self.messages[1:] if self.messages[0].role == "system" else self.messages
        return replace(self, messages=(Message("system", content), *rest))

    def without_answer(self) -> Dialogue:
        """This dialogue up to the question: an assistant turn at the end is dropped."""
        return replace(self, messages=self.messages[:-1]) if self.answer is not None else self

    def with_labels(self, **labels: Any) -> Dialogue:
        """This dialogue with ``labels`` added or replaced."""
        return replace(self, labels={**self.labels, **labels})
