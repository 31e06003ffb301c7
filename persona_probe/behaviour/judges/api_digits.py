"""The probability of each number where a judge's tokenizer writes numbers digit by digit.

The published rule reads one token, which is the whole number for the tokenizers of OpenAI's chat models and of Llama 3.
Those of Qwen, Gemma, Mistral and SmolLM2 have one token for each digit: there the first token of "87" is "8". Engines
that continue a reply which has begun can be asked what follows it, so that the probability of each number is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persona_probe.behaviour.api.chat import ChatReply, ChatRequest
from persona_probe.behaviour.judges.api_replies import Place, place_at

CONTINUING = ("vllm", "sglang")
"""The engines, by what they call themselves, that take ``continue_final_message``."""
_CONTINUE: Mapping[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
_DIGITS = tuple("0123456789")
_RARE = 0.001
"""Digits that are less probable are not followed, and count as no number, so the score may move by about 1 at most."""


@dataclass
class Digits:
    """A number that a judge is about to write.

    Attributes:
        request: what it was asked.
        before: what it has written before the number.
        place: the likeliest tokens at the first digit.
        after: the probability of each digit after the digits written so far, where it was asked.
        error: why it is not known what follows some digits; None if it is.
    """

    request: ChatRequest
    before: str
    place: Place
    after: dict[str, dict[str, float]] = field(default_factory=dict)
    error: str | None = None

    def wanted(self) -> list[str]:
        """The beginnings after which the next digit is not known yet."""
        first = [str(int(number)) for number, probability in self.place.numbers.items() if probability >= _RARE]
        begun = [digit for digit in first if digit != "0"]
        if self.after.get("1", {}).get("0", 0.0) >= _RARE:
            begun.append("10")
        return [digits for digits in begun if digits not in self.after]

    def continued(self, digits: str) -> ChatRequest:
        """The request for what follows these digits."""
        written = {"role": "assistant", "content": self.before + digits}
        return replace(
            self.request,
            messages=(*self.request.messages, written),
            max_tokens=1,
            extra={**self.request.extra, **_CONTINUE},
        )

    def numbers(self) -> dict[float, float]:
        """The probability of each number 0-100: of its digits, and of anything but a digit after them."""
        numbers: dict[float, float] = {}
        for first, probability in self.place.numbers.items():
            begun = str(int(first))
            if begun == "0":
                numbers[0.0] = numbers.get(0.0, 0.0) + probability
            elif begun in self.after:
                following = self.after[begun]
                numbers[first] = numbers.get(first, 0.0) + probability * max(0.0, 1 - sum(following.values()))
                for digit, share in following.items():
                    numbers[float(begun + digit)] = probability * share
        if "10" in self.after and 10.0 in numbers:
            hundred = self.after["10"].get("0", 0.0)
            numbers[100.0] = numbers[10.0] * hundred
            numbers[10.0] *= max(0.0, 1 - sum(self.after["10"].values()))
        return numbers


def follow(numbers: Sequence[Digits], complete: Callable[[Sequence[ChatRequest]], list[ChatReply]]) -> None:
    """Ask what follows the digits of some numbers; ``after``, or else ``error``, is filled in.

    Args:
        numbers: their first digits.
        complete: what asks.
    """
    for _ in range(2):  # the second time only after "10"
        asked = [(number, digits) for number in numbers if number.error is None for digits in number.wanted()]
        replies = complete([number.continued(digits) for number, digits in asked]) if asked else []
        for (number, digits), reply in zip(asked, replies, strict=True):
            place = place_at(reply.logprobs or (), 0)
            if reply.error is not None:
                number.error = reply.error
            elif place is None or not place.top:
                number.error = f"the server does not list what follows {digits!r}"
            else:
                following = {token: probability for token, probability in place.top.items() if token in _DIGITS}
                number.after[digits] = following
