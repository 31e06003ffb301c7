"""Which tokens are the content of one message of a dialogue."""

from __future__ import annotations

from dataclasses import replace

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import ChatTemplate, Encoded
from persona_probe.errors import PersonaProbeError

_MARK = "\u2063mark\u2063"


def turn_span(template: ChatTemplate, encoded: Encoded, turn: int) -> slice:
    """The token positions of message ``turn``'s content in an encoded dialogue.

    They are found by what the template writes around that message and by the tokenizer's offsets. Tokens that lie
    across the content's border are outside.

    Args:
        template: the one that the dialogue was encoded with.
        encoded: the dialogue.
        turn: which message, counted from 0 with the system message; negative numbers count from the last.

    Raises:
        PersonaProbeError: if there is no such message, it contains no whole token, or the template writes earlier turns
            in another way than it writes them alone; the dialogue is named.
    """
    dialogue = encoded.dialogue
    messages = dialogue.messages
    if dialogue.is_text:
        raise PersonaProbeError(f"dialogue {dialogue.name}: is a plain text, which has no turns")
    if not -len(messages) <= turn < len(messages):
        raise PersonaProbeError(f"dialogue {dialogue.name}: has no turn {turn}; it has {len(messages)}, counted from 0")
    index = turn % len(messages)
    open_end = dialogue.answer is None
    whole = template.render(dialogue, generation_prompt=open_end)
    content = messages[index].content.strip()
    start = _content_start(template, dialogue, index)
    if start is None or not whole[start:].lstrip().startswith(content):
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: the chat template changes the text of turn {index}, so its tokens cannot be "
            "identified"
        )
    start += len(whole[start:]) - len(whole[start:].lstrip())
    stop = start + len(content)
    encoding = template.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    inside = []
    for position, (first, last) in enumerate(encoding["offset_mapping"]):
        text = whole[first:last]
        # Many tokenizers put the space before a word into its token; that space does not make it another turn's.
        begin = first + len(text) - len(text.lstrip()) if text.strip() else first
        if last > first and begin >= start and begin + len(text.strip() or text) <= stop:
            inside.append(position)
    if not inside:
        raise PersonaProbeError(f"dialogue {dialogue.name}: turn {index} ({content[:40]!r}) contains no whole token")
    return slice(inside[0], inside[-1] + 1)


def _content_start(template: ChatTemplate, dialogue: Dialogue, index: int) -> int | None:
    """Where message ``index``'s content begins in the dialogue's text."""
    marked = replace(
        dialogue,
        messages=tuple(
            replace(message, content=_MARK) if number == index else message
            for number, message in enumerate(dialogue.messages)
        ),
    )
    parts = template.render(marked, generation_prompt=dialogue.answer is None).split(_MARK)
    return len(parts[0]) if len(parts) == 2 else None
