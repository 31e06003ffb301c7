"""The probabilities of all replies that a judge may give, from few forward passes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

Branch = tuple[int, int | None, Tensor]
"""The number of the prompt, the number of the path (None: the prompt itself), and the ``(token, vocabulary)`` logits
after each token of the path (after the last token of the prompt)."""
_BYTES_AT_ONCE = 2**30
"""The greatest size of the caches and logits for the branches of one forward pass."""
_SHORT = 3
"""The greatest number of tokens of a short path; short paths run together (a number has at most three digits)."""


@dataclass(frozen=True)
class AnswerTree:
    """Short answers as token sequences, with the paths that cover every prefix of them.

    Attributes:
        answers: the texts.
        tokens: the tokens of each, as the chat template writes it as an answer.
        stops: the tokens that end an answer.
        paths: the sequences that are not a prefix of another; each prefix of an answer lies on one of them.
    """

    answers: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    stops: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def depth(self) -> int:
        """The number of tokens of the longest path."""
        return max(map(len, self.paths))

    def along(self, paths: Sequence[tuple[int, ...]]) -> AnswerTree:
        """The tree of the answers that lie on ``paths``."""
        chosen = [
            (answer, tokens)
            for answer, tokens in zip(self.answers, self.tokens, strict=True)
            if any(path[: len(tokens)] == tokens for path in paths)
        ]
        answers, sequences = zip(*chosen, strict=True)
        return AnswerTree(answers, sequences, self.stops, tuple(paths))

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
        begun = {sequence[:length] for sequence in sequences for length in range(1, len(sequence))}
        paths = sorted((one for one in sequences if one not in begun), key=lambda one: (len(one), one))
        return cls(tuple(sequences.values()), tuple(sequences), tuple(stops), tuple(paths))


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


@torch.inference_mode()
def answer_tree_log_probs(
    model: Model, tree: AnswerTree, prompts: Sequence[Sequence[int]], *, cached: bool = True
) -> Float[np.ndarray, "prompt answer"]:
    """The log-probability (nats) of each answer and its end, after each prompt.

    It is the sum of the log-probabilities of the answer's tokens, each after everything before it, and of the
    log-probability that any stop token follows; nothing is approximated or left out.

    Args:
        model: the model that would answer.
        tree: the answers.
        prompts: token ids, up to where generation starts.
        cached: read each prompt once (`cached_branches`), or with every path (`whole_branches`).
    """
    steps = _Steps(tree, len(prompts))
    branches = cached_branches if cached else whole_branches
    with model.running():
        for prompt, path, logits in branches(model, tree.paths, prompts):
            steps.add(prompt, path, logits)
    return steps.total()


def cache_is_exact(model: Model, tree: AnswerTree, prompt: Sequence[int]) -> bool:
    """Whether cached branches give the same as whole forward passes, tried on the tree's shortest and longest path."""
    if not cache_can_branch(model, prompt):
        return False
    few = tree.along(sorted({tree.paths[0], tree.paths[-1]}))
    fast, slow = (answer_tree_log_probs(model, few, [prompt], cached=cached) for cached in (True, False))
    # Half precision rounds differently in differently shaped batches.
    tolerance = 0.02 if model.plain.dtype == torch.float32 else 0.5
    return bool(np.abs(fast - slow).max() <= tolerance)


class _Steps:
    """The log-probability of each token of each answer, and of its end, collected from forward passes."""

    def __init__(self, tree: AnswerTree, prompts: int) -> None:
        self.tree = tree
        self.steps = [np.full((prompts, len(tokens) + 1), np.nan) for tokens in tree.tokens]
        # Each prefix is read on the first path that has it, so that nothing is computed twice.
        self.wanted: dict[int, list[tuple[int, int]]] = {}
        for answer, tokens in enumerate(tree.tokens):
            for length in range(1, len(tokens) + 1):
                path = next(i for i, path in enumerate(tree.paths) if path[:length] == tokens[:length])
                self.wanted.setdefault(path, []).append((answer, length))

    def add(self, prompt: int, path: int | None, logits: Tensor) -> None:
        """Add the logits after each token of a path; if ``path`` is None, those after the prompt itself."""
        after = torch.log_softmax(logits.float(), dim=-1)
        if path is None:
            first = torch.tensor([tokens[0] for tokens in self.tree.tokens], device=after.device)
            for steps, value in zip(self.steps, after[0, first].double().cpu().numpy(), strict=True):
                steps[prompt, 0] = value
            return
        stops = torch.tensor(self.tree.stops, device=after.device)
        ends = torch.logsumexp(after[:, stops].double(), dim=-1).cpu().numpy()
        for answer, length in self.wanted.get(path, []):
            tokens = self.tree.tokens[answer]
            done = length == len(tokens)
            self.steps[answer][prompt, length] = ends[length - 1] if done else float(after[length - 1, tokens[length]])

    def total(self) -> Float[np.ndarray, "prompt answer"]:
        return np.stack([steps.sum(axis=1) for steps in self.steps], axis=1)


def cached_branches(model: Model, paths: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]) -> Iterator[Branch]:
    """The branches after prompts that are read once, padded on the left, and whose key-value caches are continued.

    The caches are repeated for the paths (about 93 of up to three tokens for the numbers 0-100 written digit by digit,
    101 of one token if each number is one token), which run together as far as memory allows.
    """
    lengths = [len(prompt) for prompt in prompts]
    ids, mask = _left_padded(model, prompts)
    forward = _Forward(model)
    output = forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), last_only=True)
    for prompt, logits in enumerate(output.logits[:, -1:]):
        yield prompt, None, logits
    cache = output.past_key_values
    held = sum(tensor.nbytes for tensor in _tensors(cache))
    logits_of_token = len(prompts) * output.logits.shape[-1] * 8
    parts = [
        [group[number] for number in chosen]
        for group in _alike(paths)
        for chosen in _chunks(len(group), held + logits_of_token * max(len(paths[number]) for number in group))
    ]
    for chosen in parts:
        # Only the last part may change the cache; the others need a copy.
        repeated = cache if chosen is parts[-1] else copy.deepcopy(cache)
        repeated.batch_repeat_interleave(len(chosen))
        branch = _right_padded(model, [paths[number] for number in chosen]).repeat(len(prompts), 1)
        seen = torch.cat([mask.repeat_interleave(len(chosen), 0), torch.ones_like(branch)], dim=1)
        start = torch.tensor(lengths, device=model.device).repeat_interleave(len(chosen))[:, None]
        steps = torch.arange(branch.shape[1], device=model.device)
        logits = forward(branch, seen, start + steps, cache=repeated).logits
        for row in range(len(branch)):
            yield row // len(chosen), chosen[row % len(chosen)], logits[row]


def whole_branches(model: Model, paths: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]) -> Iterator[Branch]:
    """The branches when each prompt is read again with every path: for models whose cache cannot be continued.

    Rows are padded on the right, which causal models do not see, so this is exact for every architecture.
    """
    depth = max(map(len, paths))
    vocabulary = int(model.plain.config.get_text_config().vocab_size)
    for number, prompt in enumerate(prompts):
        for chosen in _chunks(len(paths), (len(prompt) + depth) * vocabulary * 8):
            ids = _right_padded(model, [[*prompt, *paths[path]] for path in chosen])
            logits = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            if chosen[0] == 0:
                yield number, None, logits[0, len(prompt) - 1 : len(prompt)]
            for row, path in enumerate(chosen):
                yield number, path, logits[row, len(prompt) :]


@torch.inference_mode()
def cache_can_branch(model: Model, prompt: Sequence[int]) -> bool:
    """Whether the model's cache holds only keys and values, so that it can be repeated and continued by several tokens.

    Recurrent states (Mamba, linear attention) cannot.
    """
    ids, mask = _left_padded(model, [prompt])
    output = _Forward(model)(ids, mask, mask.cumsum(-1) - 1, last_only=True)
    layers = getattr(getattr(output, "past_key_values", None), "layers", [])
    return bool(layers) and all(hasattr(layer, "batch_repeat_interleave") for layer in layers)


class _Forward:
    """The model's forward pass with a cache; uses positions, and asks for the last logits only, if the model can."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.known = inspect.signature(type(model.plain).forward).parameters

    def __call__(
        self, ids: Tensor, mask: Tensor, positions: Tensor, *, cache: Any = None, last_only: bool = False
    ) -> Any:
        more: dict[str, Any] = {"position_ids": positions} if "position_ids" in self.known else {}
        if last_only and "logits_to_keep" in self.known:
            more["logits_to_keep"] = 1
        if cache is not None:
            more["past_key_values"] = cache
        return self.model.hf(input_ids=ids, attention_mask=mask, use_cache=True, **more)


def _left_padded(model: Model, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask ``(prompt, position)``; all rows end where the replies begin."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), int(model.tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    return ids.to(model.device), mask.to(model.device)


def _right_padded(model: Model, rows: Sequence[Sequence[int]]) -> Tensor:
    ids = torch.full((len(rows), max(map(len, rows))), int(model.tokenizer.pad_token_id))
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(list(tokens))
    return ids.to(model.device)


def _alike(paths: Sequence[Sequence[int]]) -> list[list[int]]:
    """The numbers of the short and of the long paths: a word of seven tokens must not pad a hundred numbers."""
    short = [number for number, path in enumerate(paths) if len(path) <= _SHORT]
    long = [number for number, path in enumerate(paths) if len(path) > _SHORT]
    return [group for group in (short, long) if group]


def _chunks(count: int, bytes_each: int) -> Iterator[list[int]]:
    """The numbers below ``count``, in parts that fit into memory."""
    size = max(1, _BYTES_AT_ONCE // max(1, bytes_each))
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))


def _tensors(cache: Any) -> list[Tensor]:
    return [value for layer in cache.layers for value in vars(layer).values() if isinstance(value, Tensor)]
