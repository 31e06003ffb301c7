"""Log-probabilities of many answers to the same prompts: each prompt is read once, its cache serves all its answers."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from persona_probe.activations.batching import batches, halving
from persona_probe.dialogue.encoding import Encoded
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary

_CACHED = 8
"""How many times more tokens may lie in the caches of a forward pass than are read in it."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_OF_HALF = 0.1
"""Nats per token by which a continued cache may differ from a whole forward pass: rounding in other batch shapes."""

Prompts = dict[tuple[int, tuple[int, ...]], list[int]]
"""The numbers of the answers to each prompt: the caller's number for it (under steering, its intervention), its ids."""
Done = Callable[[list[int], Float[np.ndarray, "... answer"]], None]


def by_prompt(encoded: Sequence[Encoded], owners: Sequence[int]) -> Prompts:
    """The answers by what comes before them; prompts of different owners may be steered differently."""
    prompts: defaultdict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for number, (item, owner) in enumerate(zip(encoded, owners, strict=True)):
        prompts[owner, item.input_ids[: item.prompt_length]].append(number)
    return dict(prompts)


class SharedPrompts:
    """Reads each prompt once, and continues its cache with each answer.

    Prompts that are read together have the same length, and answers are padded on the right, where nothing sees it. So
    no position moves, and every architecture whose cache can be continued gives what single forward passes give.

    Args:
        model: which model reads.
        encoded: dialogues that end with an answer.
        owners: for steering, which of the caller's dialogues each one belongs to.
        template: the template that they were encoded with.
        tokens_per_batch: tokens read per forward pass.
    """

    def __init__(
        self,
        model: Model,
        encoded: Sequence[Encoded],
        owners: Sequence[int],
        template: ChatTemplate,
        tokens_per_batch: int,
    ) -> None:
        self.model, self.encoded, self.owners, self.template = model, encoded, owners, template
        self.budget = tokens_per_batch
        self.prompts = by_prompt(encoded, owners)
        parameters = inspect.signature(type(model.plain).forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def can_be_used(self, whole: Callable[[list[int]], Float[np.ndarray, "... answer"]]) -> bool:
        """Whether prompts are shared at all, and continued caches give the same as whole forward passes.

        That is tried on the prompt with the longest dialogue: with its longest answer, and another one.

        Args:
            whole: gives the log-probabilities of answers from whole forward passes.
        """
        if len(self.encoded) < 2 * len(self.prompts):
            return False
        border = longest_alike(self.model.plain.config)
        lengths = [item.response_end for item in self.encoded]
        if border is not None and max(lengths) > border:
            return False  # a long answer would change how its prompt is read
        longest = max(self.prompts.values(), key=lambda numbers: max(lengths[number] for number in numbers))
        tried = sorted(longest, key=lambda number: -_length(self.encoded[number]))
        tried = [tried[0], tried[-1]] if len(tried) > 1 else tried
        expected = whole(tried)
        found: dict[int, float] = {}
        try:
            self._read([tried], lambda part, sums: found.update(zip(part, sums.tolist(), strict=True)))
        except (PersonaProbeError, _CannotBranch):  # a gate that must read each token once, or another kind of cache
            return False
        tolerance = _TOLERANCE.get(self.model.plain.dtype, _TOLERANCE_OF_HALF)
        pairs = zip(tried, expected, strict=True)
        # `not >` and not `<=`: a model that was destroyed gives NaN either way.
        return not any(
            abs(found[number] - value) > tolerance * _length(self.encoded[number]) for number, value in pairs
        )

    def read(self, done: Done) -> None:
        """Read everything; ``done`` is called with the numbers of answers and the sums of their log-probabilities."""
        groups = list(self.prompts.values())
        lengths = [self.encoded[numbers[0]].prompt_length for numbers in groups]
        order = sorted(range(len(groups)), key=lambda group: -lengths[group])
        for same in _alike(order, lengths):
            for part in batches([lengths[group] for group in same], self.budget):
                halving(
                    [same[i] for i in part],
                    lambda part: self._read([groups[group] for group in part], done),
                    lambda group: self._name(groups[group][0]),
                )

    @torch.inference_mode()
    def _read(self, groups: Sequence[Sequence[int]], done: Done) -> None:
        """Read prompts of the same length, then all their answers."""
        firsts = [self.encoded[numbers[0]] for numbers in groups]
        ids = torch.tensor([item.input_ids[: item.prompt_length] for item in firsts], device=self.model.device)
        width = ids.shape[1]
        with self.model.at_boundary(self._boundary([numbers[0] for numbers in groups])):
            output = self.model.hf(
                input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **self._last_only
            )
        cache = getattr(output, "past_key_values", None)
        if not _can_branch(cache, width):
            raise _CannotBranch
        first = torch.log_softmax(output.logits[:, -1].float(), dim=-1)
        rows = [(row, number) for row, numbers in enumerate(groups) for number in numbers]
        answers = [self._answer(number) for _, number in rows]
        begins = first[
            torch.tensor([row for row, _ in rows], device=first.device),
            torch.tensor([answer[0] for answer in answers], device=first.device),
        ]
        sums = begins.double().cpu().numpy()

        def continued(part: list[int]) -> None:
            sums[part] += self._continued(cache, width, [rows[i] for i in part], [answers[i] for i in part])

        longer = [i for i, answer in enumerate(answers) if len(answer) > 1]
        read = [len(answers[i]) - 1 for i in longer]
        for part in batches([max(length, (width + length) // _CACHED) for length in read], self.budget):
            halving([longer[i] for i in part], continued, lambda i: self._name(rows[i][1]))
        done([number for _, number in rows], sums)

    def _continued(
        self, cache: Any, width: int, rows: Sequence[tuple[int, int]], answers: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "... answer"]:
        """The log-probability of each answer's tokens after the first."""
        device = self.model.device
        counts = torch.tensor([len(answer) - 1 for answer in answers])
        read, asked = torch.zeros((2, len(rows), int(counts.max())), dtype=torch.long)
        for row, answer in enumerate(answers):
            read[row, : len(answer) - 1] = torch.tensor(answer[:-1])
            asked[row, : len(answer) - 1] = torch.tensor(answer[1:])
        own = _selected(cache, torch.tensor([row for row, _ in rows], device=device))
        seen = torch.ones((len(rows), width + read.shape[1]), dtype=torch.long, device=device)
        with self.model.at_boundary(self._boundary([number for _, number in rows])):
            logits: Tensor = self.model.hf(
                input_ids=read.to(device), attention_mask=seen, past_key_values=own, use_cache=True
            ).logits
        inside = (torch.arange(read.shape[1]) < counts[:, None]).to(logits.device)
        log_probs = -functional.cross_entropy(logits[inside].float(), asked.to(logits.device)[inside], reduction="none")
        starts = np.cumsum([0, *counts[:-1].tolist()])
        return np.asarray(np.add.reduceat(log_probs.double().cpu().numpy(), starts))

    def _answer(self, number: int) -> tuple[int, ...]:
        item = self.encoded[number]
        return item.input_ids[item.span("response")]

    def _boundary(self, numbers: Sequence[int]) -> Boundary:
        return Boundary.of_dialogues(
            [self.encoded[number] for number in numbers], [self.owners[number] for number in numbers], self.template
        )

    def _name(self, number: int) -> str:
        return self.encoded[number].dialogue.name


class _CannotBranch(Exception):  # noqa: N818  (nothing went wrong)
    """The model's cache holds more than keys and values, so that it cannot be given to several answers."""


def _length(item: Encoded) -> int:
    return item.response_end - item.prompt_length


def _alike(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers in ``order``, those of the same length together."""
    same: list[int] = []
    for number in order:
        if same and lengths[number] != lengths[same[0]]:
            yield same
            same = []
        same.append(number)
    yield same


def _can_branch(cache: Any, width: int) -> bool:
    """Whether a cache holds only keys and values of all ``width`` tokens, which no update changes in place."""
    layers = getattr(cache, "layers", [])
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return bool(layers) and plain and int(cache.get_seq_length()) == width


def _selected(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows of ``cache``, which stays as it is."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    own.batch_select_indices(rows)
    return own
