"""Which tokens of a dialogue are the content of one message, and which are learned."""

from __future__ import annotations

from dataclasses import replace

from persona_probe.dialogue.chat_format import MARK
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, Tokens, continued, tokenized
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError

_MARK = MARK.format(0)


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
    inside = []
    for position, (first, last) in enumerate(_tokens(template, dialogue, whole).offsets):
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


def learned_spans(template: ChatTemplate, encoded: Encoded) -> list[slice]:
    """The token positions that fine-tuning learns: each answer from where it would be asked for, and its end of turn.

    Tool calls and thoughts that the template writes in an answer's turn are part of it. Messages that are not to be
    learned (`Message.learned`) are left out.

    Args:
        template: the one that the dialogue was encoded with.
        encoded: a dialogue that ends with an answer.

    Raises:
        PersonaProbeError: if the tokens of an earlier answer cannot be identified; the dialogue is named.
    """
    dialogue, ids = encoded.dialogue, encoded.input_ids
    learned = [number for number, turn in enumerate(dialogue.messages) if turn.role == "assistant" and turn.learned]
    spans = []
    for number in learned:
        last = number == len(dialogue.messages) - 1
        before, stop = (encoded.prompt_length, encoded.response_end) if last else _earlier(template, encoded, number)
        header = template.format.channel_ids
        start = before - len(header) if header and ids[before - len(header) : before] == header else before
        limit = len(ids) if last else _begin(template, dialogue, number + 1, len(ids))
        spans.append(slice(start, _end_of_turn(template, ids[:limit], stop)))
    return spans


def _begin(template: ChatTemplate, dialogue: Dialogue, number: int, default: int) -> int:
    """The first token of message ``number``'s content; ``default`` if it cannot be found."""
    begin = _content_start(template, dialogue, number)
    offsets = () if begin is None else _tokens(template, dialogue, template.render(dialogue)).offsets
    return next((place for place, (_, end) in enumerate(offsets) if begin is not None and end > begin), default)


def _earlier(template: ChatTemplate, encoded: Encoded, number: int) -> tuple[int, int]:
    """Where the answer ``number`` begins and its content ends."""
    dialogue = encoded.dialogue
    whole = template.render(dialogue)
    # Nothing asks for an answer that begins the dialogue.
    before = replace(dialogue, messages=dialogue.messages[:number]) if number else None
    asked = None if before is None else template.render(before, generation_prompt=True)
    if asked is None or not whole.startswith(asked):  # templates that leave out earlier thoughts write turns otherwise
        span = turn_span(template, encoded, number)
        return span.start, span.stop
    # A token across the border belongs to the answer if all that it holds of the prompt is white space.
    start = next(
        position
        for position, (first, end) in enumerate(_tokens(template, dialogue, whole).offsets)
        if end > len(asked) and not whole[first : len(asked)].strip()
    )
    content = dialogue.messages[number].content.strip()
    return start, turn_span(template, encoded, number).stop if content else start


def _end_of_turn(template: ChatTemplate, ids: tuple[int, ...], stop: int) -> int:
    """The position after the end of the turn whose content ends at ``stop``; ``stop`` if the template writes none."""
    form = template.format
    if form.end is not None:
        return next((place + 1 for place in range(stop, len(ids)) if ids[place] in form.control), stop)
    if form.end_text:
        for place in range(stop + 1, len(ids) + 1):
            if form.end_text in template.tokenizer.decode(list(ids[stop:place])):
                return place
    return stop


def _tokens(template: ChatTemplate, dialogue: Dialogue, whole: str) -> Tokens:
    """The tokens of the dialogue's text, as `ChatTemplate.encode` gives them."""
    if dialogue.answer is None:
        return tokenized(template.tokenizer, dialogue, whole)
    prompt = template.render(dialogue.without_answer(), generation_prompt=True)
    return continued(template.tokenizer, dialogue, prompt, whole)
