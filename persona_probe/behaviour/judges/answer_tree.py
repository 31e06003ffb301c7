"""The replies that a judge may give as a tree of tokens, and their probabilities from the logits after each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError
from persona_probe.models.generation import end_tokens

if TYPE_CHECKING:
    from persona_probe.models.model import Model


@dataclass(frozen=True)
class AnswerTree:
    """Short answers as token sequences; each beginning that several of them share is one node.

    The numbers 0 to 100, written digit by digit, are 101 nodes: 0 to 9, then 10 to 99 below 1 to 9, and 100 below 10.

    Attributes:
        answers: the texts.
        tokens: the tokens of each, as the chat template writes it as an answer.
        stops: the tokens that end an answer.
    """

    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    stops: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, answers: Sequence[str]) -> AnswerTree:
        """The tree of ``answers``, tokenized.

        Raises:
            PersonaProbeError: if the tokenizer makes the same tokens of two answers, or nothing ends an answer.
        """
        stops = end_tokens(model)
        replies = encoded_replies(model.template, answers, model.name)
        sequences = {encoded.input_ids[encoded.span("response")]: answer for answer, encoded in replies.items()}
        if not stops:
            raise PersonaProbeError(
                f"{model.name}: has no token that ends an answer, so '1' and '10' cannot be distinguished; "
                "set tokenizer.eos_token, or judge with another model"
            )
        return cls(tuple(sequences.values()), tuple(sequences), tuple(stops))

    @cached_property
    def nodes(self) -> dict[tuple[int, ...], int]:
        """The number of each node, by the tokens up to it; a node comes after the one above it."""
        beginnings = {tokens[:length] for tokens in self.tokens for length in range(1, len(tokens) + 1)}
        return {tokens: number for number, tokens in enumerate(sorted(beginnings, key=lambda one: (len(one), one)))}

    @property
    def depth(self) -> int:
        """The number of tokens of the longest answer."""
        return max(map(len, self.tokens))

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """The token sequences that no other one continues: every node lies on one of them."""
        begun = {tokens[:-1] for tokens in self.nodes}
        return [tokens for tokens in self.nodes if tokens not in begun]

    def along(self, paths: Sequence[tuple[int, ...]]) -> AnswerTree:
        """The tree of the answers that lie on ``paths``."""
        chosen = [
            (answer, tokens)
            for answer, tokens in zip(self.answers, self.tokens, strict=True)
            if any(path[: len(tokens)] == tokens for path in paths)
        ]
        answers, sequences = zip(*chosen, strict=True)
        return AnswerTree(answers, sequences, self.stops)

    def log_probs(self, logits: Float[Tensor, "node vocabulary"]) -> Float[np.ndarray, "... answer"]:
        """The log-probability (nats) of each answer and its end.

        It is the sum of the log-probabilities of the answer's tokens, each after everything before it, and of the
        log-probability that any stop token follows; nothing is approximated or left out.

        Args:
            logits: those after the prompt, and then those after each node.
        """
        after = torch.log_softmax(logits.float(), dim=-1)
        answers, rows, following, last = self._steps
        steps = after[torch.from_numpy(rows), torch.from_numpy(following)].double().cpu().numpy()
        ends = torch.logsumexp(after[:, list(self.stops)].double(), dim=-1).cpu().numpy()
        total = np.zeros(len(self.answers))
        np.add.at(total, answers, steps)
        return np.asarray(total + ends[last])

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Per token of each answer: the answer, the row of logits before it, the token; then each answer's last row."""
        answers, rows, following = [], [], []
        for answer, tokens in enumerate(self.tokens):
            for place, token in enumerate(tokens):
                answers.append(answer)
                rows.append(self.nodes[tokens[:place]] + 1 if place else 0)
                following.append(token)
        last = [self.nodes[tokens] + 1 for tokens in self.tokens]
        return np.array(answers), np.array(rows), np.array(following), np.array(last)


def encoded_replies(chat: ChatTemplate, answers: Sequence[str], name: str) -> dict[str, Encoded]:
    """Each of ``answers`` as the chat template writes it as a reply.

    Args:
        chat: the chat template.
        answers: the texts.
        name: the name of the model, for errors.

    Raises:
        PersonaProbeError: if the tokenizer makes the same tokens of two answers, or the template changes one.
    """
    asked = Dialogue.from_messages([{"role": "user", "content": "?"}])
    replies: dict[str, Encoded] = {}
    seen: dict[tuple[int, ...], str] = {}
    for answer in answers:
        encoded = replies[answer] = chat.encode(asked.with_answer(answer))
        other = seen.setdefault(encoded.input_ids[encoded.span("response")], answer)
        if other != answer:
            raise PersonaProbeError(
                f"{name}: its tokenizer makes the same tokens of {other!r} and {answer!r}, so it cannot give a score "
                "by saying it; judge with another model"
            )
    return replies
