"""What a chat template writes around turns, found by rendering it; generating, learning and decoding use it too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from persona_probe.errors import PersonaProbeError

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""Messages, and whether the assistant's header is added -> the template's text."""

MARK = "\u2063{}\u2063"
"""A text that no template contains and no change of case alters, to find out where a message is written."""
_IN_WORDS = re.compile(r"<[^<>\s]{2,40}>|\[/?[A-Z][A-Z_]{2,20}\]|<<[^<>\s]{1,20}>>")
"""Marks such as ``[INST]`` and ``<|im_end|>`` that a template writes between turns, if they are not tokens."""
_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
"""In marks around a thought, which is part of what a model writes in its turn."""


@dataclass(frozen=True)
class ChatFormat:
    """What a chat template writes around the turns of a dialogue.

    Attributes:
        end: the token that the template writes after an answer; None if it writes none.
        end_text: what it writes after an answer, without the white space around it; empty if it writes nothing.
        stop_text: the text at which an answer ends if no token ends it: ``end_text``, or else what the template writes
            before the next question (``### User:``); empty if there is neither.
        channel: what it writes between the assistant's header and an answer, if the model can write other channels too
            (gpt-oss: ``<|channel|>final<|message|>``); empty for templates without channels.
        channel_ids: the tokens of ``channel``.
        control: the tokens that the template writes around turns, by id.
        cuts: the tokens before which a model's answer ends: ``control``, and the tokenizer's other special tokens.
        markers: the texts that separate turns: those of ``control``, and marks that are not tokens.
        fault: why no answer can be asked for, in words; None if it can.
    """

    end: int | None = None
    end_text: str = ""
    stop_text: str = ""
    channel: str = ""
    channel_ids: tuple[int, ...] = ()
    control: Mapping[int, str] = field(default_factory=dict)
    cuts: frozenset[int] = frozenset()
    markers: tuple[str, ...] = ()
    fault: str | None = None

    def answer(self, ids: Sequence[int], stops: Sequence[int]) -> tuple[int, ...] | None:
        """The tokens of the answer among those that a model has written, or None if it never began its final channel.

        Args:
            ids: what the model has written, up to its length limit or with padding at its end.
            stops: the tokens that end an answer; tokens in ``cuts`` end it too.
        """
        written = tuple(ids)
        if self.channel_ids:
            size = len(self.channel_ids)
            starts = [i for i in range(len(written) - size + 1) if written[i : i + size] == self.channel_ids]
            if not starts:
                return None
            written = written[starts[-1] + size :]
        ends = self.cuts.union(stops)
        return written[: next((place for place, token in enumerate(written) if token in ends), len(written))]


def turn_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokenizer's added tokens by id, without runs of spaces and words that are not special: these are text."""
    added = tokenizer.added_tokens_decoder
    texts = {number: token.content.strip() for number, token in added.items()}
    return {number: text for number, text in texts.items() if text and (added[number].special or not text.isalnum())}


def find_format(tokenizer: PreTrainedTokenizerBase, render: Render) -> ChatFormat:
    """The format of a tokenizer's chat template, found from how it renders a few short dialogues.

    Where there is no template, or it refuses all of them, only the tokenizer's special tokens are known.
    """
    added = turn_tokens(tokenizer)
    special = {token for token in added if tokenizer.added_tokens_decoder[token].special}
    cuts = frozenset(token for token in special if not _THOUGHT.search(added[token]))
    user, answer, next_user = (MARK.format(number) for number in (1, 2, 3))
    asked = [{"role": "user", "content": user}]
    answered = [*asked, {"role": "assistant", "content": answer}]
    for before in ([], [{"role": "system", "content": MARK.format(0)}]):
        try:
            prompt, bare = (render([*before, *asked], header) for header in (True, False))
            whole = render([*before, *answered], False)
            break
        except PersonaProbeError:
            continue
    else:
        return ChatFormat(cuts=cuts)
    if user not in prompt or whole.count(answer) != 1 or user not in whole:
        return ChatFormat(cuts=cuts)
    try:
        longer = render([*before, *answered, {"role": "user", "content": next_user}], False)
    except PersonaProbeError:
        longer = ""
    head, tail = whole.split(answer)
    after = _ids(tokenizer, tail)
    end = next((token for token in after if token in added), None)
    # What is written around the last answer may be a thought: then only special tokens belong to the turns.
    control = {token for token in _ids(tokenizer, longer) if token in added}
    control |= {token for token in _ids(tokenizer, whole) if token in special}
    control |= {token for token in (end, tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None}
    asked_for, unasked, written = (text.split(user, 1)[1] for text in (prompt, bare, head))
    fault = _fault(asked_for, unasked, written, set(added.values()))
    between = head[len(prompt) :] if head.startswith(prompt) and fault is None else ""
    channel = between if special.intersection(_ids(tokenizer, between)) else ""
    # What stands before the first question may be a default system prompt.
    in_words = _IN_WORDS.findall(re.sub(r"\u2063\d\u2063", " ", longer.partition(user)[2]))
    texts = {token: added.get(token) or str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(control)}
    texts = {token: text for token, text in texts.items() if not _THOUGHT.search(text)}
    return ChatFormat(
        end=end,
        end_text=tail.strip(),
        stop_text="" if end is not None else tail.strip() or _between(longer, answer, next_user),
        channel=channel,
        channel_ids=tuple(_ids(tokenizer, channel)),
        control=texts,
        cuts=cuts.union(texts),
        markers=tuple(dict.fromkeys([*texts.values(), *(mark for mark in in_words if not _THOUGHT.search(mark))])),
        fault=fault,
    )


def _between(text: str, first: str, second: str) -> str:
    """What stands between two marks, from its last line break before a word on; empty if there is nothing."""
    if first not in text or second not in text:
        return ""
    written = text.split(first, 1)[1].split(second, 1)[0]
    words = written.strip()
    return f"\n{words}" if words and "\n" in written[: written.index(words)] else words


def _fault(prompt: str, bare: str, head: str, added: set[str]) -> str | None:
    """Why prompts end in another way than where answers begin.

    Args:
        prompt: what follows the question where an answer is asked for.
        bare: the same where none is asked for.
        head: what stands between question and answer.
        added: the texts of the tokenizer's added tokens.
    """
    asked, written = prompt.rstrip(), head.rstrip()
    if asked == written:
        return None
    if prompt == bare:
        return (
            "the chat template adds no assistant header where an answer is asked for (it ignores "
            f"add_generation_prompt): its prompts end in {prompt[-40:]!r}, before an answer it writes {head[-60:]!r}"
        )
    longer, shorter = (written, asked) if written.startswith(asked) else (asked, written)
    more = longer[len(shorter) :]
    if longer.startswith(shorter) and (_THOUGHT.search(more) or any(text in more for text in added)):
        return None
    return (
        f"where an answer is asked for, the chat template writes {prompt[-60:]!r}, but before an answer that is there "
        f"it writes {head[-60:]!r}"
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []
