"""One forward pass over prompts and all replies to them, with a mask by which each token sees only its own past."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.behaviour.judges.answer_tree import AnswerTree

if TYPE_CHECKING:
    from persona_probe.models.model import Model

Asked = Sequence[tuple[Sequence[int], AnswerTree]]
"""What is asked about one answer: the token ids of each prompt, up to where generation starts, with its replies."""
_BYTES_AT_ONCE = 2**30
"""The greatest size of the masks and logits of one forward pass."""
_FEWEST_SHARED = 8
"""The fewest shared tokens for which they are read apart."""
_FULL, _SLIDING, _CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
"""Kinds of layers: those that see everything before a token, the last tokens, and the tokens of the same chunk."""


@torch.inference_mode()
def reply_log_probs(
    model: Model, rows: Sequence[Asked], *, packed: bool = True
) -> list[list[Float[np.ndarray, "... answer"]]]:
    """The log-probabilities of all replies to each prompt of each row (`AnswerTree.log_probs`).

    Packed, the beginnings that prompts of most rows share (a system prompt, the instructions of each score) are read
    once for all rows. A row is one sequence: what its prompts have in common once, then what is special about each,
    then each node of their trees once. A token sees only what comes before it in its own prompt and reply, and is at
    the position that it has there, so that the logits are those of the plain texts.

    Args:
        model: the model that would reply.
        rows: the prompts and trees.
        packed: False reads each prompt again with each reply, for models that cannot be given such a mask.
    """
    with model.running():
        if not packed:
            return [[tree.log_probs(_whole(model, prompt, tree)) for prompt, tree in asked] for asked in rows]
        found: list[list[Float[np.ndarray, "... answer"]]] = []
        shared = _shared(model, rows)
        for part in _parts(model, [_Pack.of(asked, shared) for asked in rows], len(shared.tokens)):
            for pack, logits in zip(part, _forward(model, shared, part), strict=True):
                trees = [tree for _, tree in pack.asked]
                found.append([tree.log_probs(logits[places]) for places, tree in zip(pack.wanted, trees, strict=True)])
        return found


def packing_is_exact(model: Model, rows: Sequence[Asked]) -> bool:
    """Whether a packed pass gives the same as plain ones, tried on each tree's first and last path.

    Args:
        model: the model that would reply.
        rows: two rows whose prompts differ as those of a call do, so that the same beginnings are read apart; or one.
    """
    few = [
        [(prompt, tree.along(sorted({tree.paths[0], tree.paths[-1]}))) for prompt, tree in asked] for asked in rows[:2]
    ]
    if not _takes_masks(model):
        return False
    try:
        packed = reply_log_probs(model, few)
    except torch.OutOfMemoryError:
        raise  # says nothing about the architecture
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # this architecture makes its own mask from one number per token
    plain = reply_log_probs(model, few, packed=False)
    # Half precision rounds differently in differently shaped batches.
    tolerance = 0.02 if model.plain.dtype == torch.float32 else 0.5
    return all(
        bool(np.abs(one - other).max() <= tolerance)
        for of_row, others in zip(packed, plain, strict=True)
        for one, other in zip(of_row, others, strict=True)
    )


class _Trie:
    """Token sequences, in which each common beginning is there once; a token comes after the one before it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._parents: list[int] = []
        self._places: dict[tuple[int, int], int] = {}

    def add(self, parent: int, tokens: Sequence[int]) -> list[int]:
        """The places of ``tokens`` after ``parent`` (-1: at the start)."""
        path = []
        for token in tokens:
            if (parent, token) not in self._places:
                self._places[parent, token] = len(self.tokens)
                self.tokens.append(token)
                self._parents.append(parent)
            parent = self._places[parent, token]
            path.append(parent)
        return path

    def beginning(self, tokens: Sequence[int]) -> list[int]:
        """The places of as many first ``tokens`` as there are."""
        path: list[int] = []
        for token in tokens:
            if (place := self._places.get((path[-1] if path else -1, token))) is None:
                break
            path.append(place)
        return path

    def sees(self) -> Bool[np.ndarray, "token token"]:
        """``(token, token)``: whether the second lies on the way to the first, or is it."""
        sees = np.eye(len(self.tokens), dtype=bool)
        for place, parent in enumerate(self._parents):
            if parent >= 0:
                sees[place] |= sees[parent]
        return sees


def _shared(model: Model, rows: Sequence[Asked]) -> _Trie:
    """The beginnings of prompts that most rows have, if they are worth a pass of their own; none is a whole prompt."""
    every, counts = _Trie(), Counter[int]()
    for asked in rows:
        counts.update({place for prompt, _ in asked for place in every.add(-1, prompt[:-1])})
    enough = max(2, len(rows) // 2 + 1)
    shared = _Trie()
    for prompt, _ in (one for asked in rows for one in asked):
        path = every.beginning(prompt[:-1])
        shared.add(-1, prompt[: sum(counts[place] >= enough for place in path)])
    # A cache of the last tokens alone would not hold the first ones.
    config = model.plain.config.get_text_config()
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or math.inf
    return shared if _FEWEST_SHARED <= len(shared.tokens) < window else _Trie()


@dataclass(frozen=True)
class _Pack:
    """The prompts and replies of one row as a sequence, without the beginnings that are read for all rows.

    Attributes:
        asked: what is packed.
        tokens: the token ids; those whose logits are wanted are the last ones.
        positions: the position of each in its own prompt and reply.
        sees: ``(token, token)``: whether the first has the second before it, or is it.
        sees_shared: ``(token, shared token)``: the same of the tokens that are read for all rows.
        wanted: for each prompt the places of its last token and of its tree's nodes, counted from the first wanted one.
        n_wanted: the number of tokens whose logits are wanted.
    """

    asked: Asked
    tokens: np.ndarray
    positions: np.ndarray
    sees: Bool[np.ndarray, "token token"]
    sees_shared: Bool[np.ndarray, "token shared"]
    wanted: Sequence[Tensor]
    n_wanted: int

    @classmethod
    def of(cls, asked: Asked, shared: _Trie) -> _Pack:
        """Pack ``asked`` without the beginnings in ``shared``."""
        trie, known = _Trie(), [shared.beginning(prompt[:-1]) for prompt, _ in asked]
        starts: dict[int, list[int]] = {}
        ends = []
        for begun, (prompt, _) in zip(known, asked, strict=True):
            # Prompts with different shared beginnings may go on alike, and are yet not the same.
            path = trie.add(-2 - (begun[-1] if begun else -1), prompt[len(begun) :])
            starts.setdefault(path[0], begun)
            ends.append(path[-1])
        nodes = [[trie.add(end, node)[-1] for node in tree.nodes] for end, (_, tree) in zip(ends, asked, strict=True)]
        sees = trie.sees()
        sees_shared = np.zeros((len(trie.tokens), len(shared.tokens)), dtype=bool)
        for start, begun in starts.items():
            sees_shared[np.ix_(sees[:, start], begun)] = True
        last = sorted({*ends, *(node for of_tree in nodes for node in of_tree)})
        order = np.array([*sorted(set(range(len(trie.tokens))) - set(last)), *last])
        place = np.argsort(order) - (len(order) - len(last))
        wanted = [torch.from_numpy(place[[end, *of_tree]]) for end, of_tree in zip(ends, nodes, strict=True)]
        sees, sees_shared = sees[np.ix_(order, order)], sees_shared[order]
        positions = sees.sum(axis=1) + sees_shared.sum(axis=1) - 1
        return cls(asked, np.array(trie.tokens)[order], positions, sees, sees_shared, wanted, len(last))


def _parts(model: Model, packs: Sequence[_Pack], n_shared: int) -> Iterator[list[_Pack]]:
    """Packs in the parts whose masks and logits fit into memory."""
    vocabulary = int(model.plain.config.get_text_config().vocab_size)
    longest, most = max(len(pack.tokens) for pack in packs), max(pack.n_wanted for pack in packs)
    size = max(1, _BYTES_AT_ONCE // (8 * (longest * (longest + n_shared) + most * vocabulary)))
    for start in range(0, len(packs), size):
        yield list(packs[start : start + size])


def _forward(model: Model, shared: _Trie, packs: Sequence[_Pack]) -> Iterator[Float[Tensor, "wanted vocabulary"]]:
    """The wanted logits of each pack, from one forward pass after that over ``shared``; padded on the left."""
    width, most = max(len(pack.tokens) for pack in packs), max(pack.n_wanted for pack in packs)
    begun = len(shared.tokens)
    ids = torch.full((len(packs), width), int(model.tokenizer.pad_token_id))
    positions = torch.zeros_like(ids)
    sees = torch.zeros(len(packs), width, begun + width, dtype=torch.bool)
    sees[:, :, begun:] = torch.eye(width, dtype=torch.bool)  # padding sees itself: nothing is not a number
    for row, pack in enumerate(packs):
        start = width - len(pack.tokens)
        ids[row, start:] = torch.from_numpy(pack.tokens)
        positions[row, start:] = torch.from_numpy(pack.positions)
        sees[row, start:, :begun] = torch.from_numpy(pack.sees_shared)
        sees[row, start:, begun + start :] = torch.from_numpy(pack.sees)
    known = inspect.signature(type(model.plain).forward).parameters
    more: dict[str, Any] = {"logits_to_keep": most} if "logits_to_keep" in known else {}
    seen = positions
    if begun:
        before, first = torch.tensor([shared.tokens]), torch.from_numpy(shared.sees())[None]
        places = first.sum(dim=2) - 1
        cache = model.hf(
            input_ids=before.to(model.device),
            attention_mask=_masks(model, first, places[:, :, None], places[:, None, :]),
            position_ids=places.to(model.device),
            use_cache=True,
            **({"logits_to_keep": 1} if more else {}),
        ).past_key_values
        cache.batch_repeat_interleave(len(packs))
        more["past_key_values"] = cache
        seen = torch.cat([places.repeat(len(packs), 1), positions], dim=1)
    output = model.hf(
        input_ids=ids.to(model.device),
        attention_mask=_masks(model, sees, positions[:, :, None], seen[:, None, :]),
        position_ids=positions.to(model.device),
        use_cache=bool(begun),
        **more,
    )
    for pack, logits in zip(packs, output.logits, strict=True):
        yield logits[len(logits) - pack.n_wanted :]


def _masks(model: Model, sees: Tensor, positions: Tensor, seen: Tensor) -> Any:
    """The mask that is added to the attention scores, or one for each kind of layer.

    Args:
        model: the model.
        sees: ``(row, token, token)``: whether the first token has the second one before it.
        positions: the position of the first token.
        seen: the position of the second one.
    """
    config = model.plain.config.get_text_config()
    window: Any = getattr(config, "sliding_window", None)
    chunk: Any = getattr(config, "attention_chunk_size", None)
    kinds = set(getattr(config, "layer_types", None) or [_FULL if window is None else _SLIDING])

    def added(visible: Tensor) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=model.plain.dtype)
        return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)[:, None].to(model.device)

    masks = {}
    if _FULL in kinds:
        masks[_FULL] = added(sees)
    if _SLIDING in kinds:
        masks[_SLIDING] = added(sees & (positions - seen < window))
    if _CHUNKED in kinds:
        masks[_CHUNKED] = added(sees & (positions - seen <= positions % chunk))
    # Models with one kind of layer take its mask by itself.
    return masks if len(kinds) > 1 else masks[kinds.pop()]


def _takes_masks(model: Model) -> bool:
    """Whether this model's attention takes a mask for each pair of tokens, and all its layers are attention."""
    config = model.plain.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [_FULL])
    known = inspect.signature(type(model.plain).forward).parameters
    return (
        kinds <= {_FULL, _SLIDING, _CHUNKED}
        and "position_ids" in known
        and getattr(config, "_attn_implementation", None) in ("eager", "sdpa")
    )


def _whole(model: Model, prompt: Sequence[int], tree: AnswerTree) -> Float[Tensor, "node vocabulary"]:
    """The logits after the prompt and each node, from passes over the prompt and each path.

    Rows are padded on the right, which causal models do not see, so this is exact for every architecture.
    """
    paths, depth = tree.paths, tree.depth
    vocabulary = int(model.plain.config.get_text_config().vocab_size)
    size = max(1, _BYTES_AT_ONCE // ((len(prompt) + depth) * vocabulary * 8))
    found: dict[int, Tensor] = {}
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        ids = torch.full((len(part), len(prompt) + depth), int(model.tokenizer.pad_token_id))
        for row, path in enumerate(part):
            ids[row, : len(prompt) + len(path)] = torch.tensor([*prompt, *path])
        ids = ids.to(model.device)
        logits = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        found.setdefault(0, logits[0, len(prompt) - 1])
        for row, path in enumerate(part):
            for place in range(len(path)):
                found.setdefault(tree.nodes[path[: place + 1]] + 1, logits[row, len(prompt) + place])
    return torch.stack([found[number] for number in range(len(tree.nodes) + 1)])
