"""The turn that a judge reads: its instructions, and untrusted text that must not be able to speak for the judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persona_probe.behaviour.judges.prompts import fill
from persona_probe.dialogue.chat_format import MARK, turn_tokens
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, library_message

if TYPE_CHECKING:
    from persona_probe.dialogue.rendering import ChatTemplate
    from persona_probe.models.model import Model

_MARKS = tuple(MARK.format(number) for number in (1, 2, 3))
_SHORTEST = 3
"""The fewest characters of a marker that is defused; shorter ones (a line break, a quote) are ordinary text."""


@dataclass(frozen=True)
class Unfit:
    """Why a judge cannot be shown a dialogue.

    Attributes:
        why: the reason, in the same words for all dialogues of that kind; they follow "they".
        detail: what is special about this dialogue.
    """

    why: str
    detail: str


@dataclass(frozen=True)
class JudgeTurns:
    """Dialogues in the form in which a judge reads them.

    Attributes:
        ids: the token ids of each dialogue's prompt, up to where the judge replies, by row; without the unfit ones.
        unfit: why each of the other rows has no ids.
    """

    ids: Mapping[int, tuple[int, ...]]
    unfit: Mapping[int, Unfit]


def judge_turns(model: Model, template: str, dialogues: Sequence[Dialogue], *, room: int) -> JudgeTurns:
    """The prompt of each dialogue, from ``template``; dialogues that the judge cannot be shown are listed as unfit.

    A dialogue is unfit if its prompt is longer than the model reads, if its text would still end the user turn, or if
    the chat template refuses it.

    Args:
        model: the judge.
        template: a text with ``{question}`` and ``{answer}``.
        dialogues: answered dialogues.
        room: the number of tokens that must fit after the prompt.

    Raises:
        PersonaProbeError: if a dialogue has no answer (it is named), or `plain_turn` raises.
    """
    most = model.max_positions
    plain = structure(model.template, plain_turn(model.template, template, name=model.name, most=most, room=room))
    markers = (*turn_markers(model.template), *bracketed(template))
    ids: dict[int, tuple[int, ...]] = {}
    unfit: dict[int, Unfit] = {}
    for row, dialogue in enumerate(dialogues):
        answer = dialogue.answer
        if answer is None:
            raise PersonaProbeError(f"dialogue {dialogue.name}: has no answer to judge")
        try:
            turn = _encoded(model.template, _filled(template, dialogue, markers))
        except PersonaProbeError as error:
            unfit[row] = Unfit("are refused by the judge's chat template", library_message(error))
            continue
        if structure(model.template, turn) != plain:
            unfit[row] = Unfit("would end the judge's user turn, whatever is done to them", f"starts {answer[:40]!r}")
        elif most is not None and len(turn) + room > most:
            unfit[row] = Unfit(
                f"make a longer prompt than the {most} tokens that {model.name} reads", f"{len(turn)} tokens"
            )
        else:
            ids[row] = turn
    return JudgeTurns(ids, unfit)


def judge_content(model: Model, template: str, dialogue: Dialogue) -> str:
    """The user turn in which a judge reads an answered dialogue."""
    return _filled(template, dialogue, (*turn_markers(model.template), *bracketed(template)))


def _filled(template: str, dialogue: Dialogue, markers: Sequence[str]) -> str:
    asked = dialogue.messages[-2].content if len(dialogue.messages) > 1 else ""
    return fill(template, defused(asked, markers), defused(dialogue.answer or "", markers))


def plain_turn(chat: ChatTemplate, template: str, *, name: str, most: int | None, room: int) -> tuple[int, ...]:
    """The token ids of ``template`` with a question and an answer of one character each.

    Args:
        chat: the judge's chat template.
        template: a text with ``{question}`` and ``{answer}``.
        name: the name of the judging model, for errors.
        most: the greatest number of tokens that it reads (`persona_probe.models.positions.max_positions`).
        room: the number of tokens that must fit after the prompt.

    Raises:
        PersonaProbeError: if there is no chat template, it refuses the prompt, or even this prompt is too long.
    """
    ids = _encoded(chat, fill(template, "?", "?"))
    if most is not None and len(ids) + room > most:
        raise PersonaProbeError(
            f"the judge's prompt (starts {template[:40]!r}) has {len(ids)} tokens with an answer of one character, and "
            f"{name} reads {most}; shorten the prompt, or judge with a model that has a longer context"
        )
    return ids


def unfit_in_words(prompts: Sequence[JudgeTurns], dialogues: Sequence[Dialogue]) -> str | None:
    """How many dialogues are unfit for any of the prompts, why, and the first of each kind; None if all are fit."""
    first_reason = {row: unfit for turns in reversed(prompts) for row, unfit in turns.unfit.items()}
    if not first_reason:
        return None
    kinds: dict[str, list[int]] = {}
    for row in sorted(first_reason):
        kinds.setdefault(first_reason[row].why, []).append(row)
    reasons = "; ".join(
        f"{len(rows)} {why} (first: dialogue {dialogues[rows[0]].name}: {first_reason[rows[0]].detail})"
        for why, rows in kinds.items()
    )
    return f"{len(first_reason)} of {len(dialogues)} answers could not be judged and count as failed: {reasons}"


def _encoded(chat: ChatTemplate, text: str) -> tuple[int, ...]:
    return chat.encode(Dialogue.from_messages([{"role": "user", "content": text}], id="a judge's prompt")).input_ids


def turn_markers(template: ChatTemplate) -> tuple[str, ...]:
    """The strings with which the template separates turns, longest first: added tokens, and headers in words.

    Headers in words (``USER:``, ``[/INST]``) are what the template writes between turns, line by line.
    """
    return _longest_first([*turn_tokens(template.tokenizer).values(), *_headers(template)])


def bracketed(text: str) -> tuple[str, ...]:
    """The marks such as ``[END]`` that a judge prompt puts around what is rated."""
    return tuple(dict.fromkeys(re.findall(r"\[[^\[\]{}\n]{3,40}\]", text)))


def defused(text: str, markers: Sequence[str]) -> str:
    """``text`` with a space after the first character of every marker in it (``< |end|>``), in upper or lower case.

    What remains reads the same, but no tokenizer takes it for a special token.
    """
    long_enough = [marker for marker in _longest_first(markers) if len(marker) >= _SHORTEST]
    if not long_enough:
        return text
    pattern = re.compile("|".join(map(re.escape, long_enough)), re.IGNORECASE)
    for _ in range(3):  # a space may complete a marker that contains one; `structure` shows whether any is left
        text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return text


def structure(template: ChatTemplate, ids: Iterable[int]) -> tuple[int, ...]:
    """The tokens among ``ids`` that may separate turns, in order; equal for two prompts with the same turns."""
    parting = turn_tokens(template.tokenizer)
    return tuple(number for number in ids if number in parting)


def _headers(template: ChatTemplate) -> list[str]:
    """The lines that the template writes between a user's, an assistant's and another user's turn."""
    first, second, third = _MARKS
    turns = [("user", first), ("assistant", second), ("user", third)]
    dialogue = Dialogue.from_messages([{"role": role, "content": text} for role, text in turns])
    rendered = template.render(dialogue, generation_prompt=True)
    pieces = re.split("|".join(map(re.escape, _MARKS)), rendered)[1:]
    lines = (line.strip() for piece in pieces for line in piece.splitlines())
    return [line for line in lines if not line.isalpha()]  # a single word is ordinary text


def _longest_first(markers: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({marker for marker in markers if marker}, key=lambda marker: (-len(marker), marker)))
