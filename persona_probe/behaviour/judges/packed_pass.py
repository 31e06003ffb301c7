"""One forward pass over prompts and all replies to them, with a mask by which each token sees only its own past."""

from __future__ import annotations

import inspect
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
"""The fewest tokens at the start of all prompts for which they are read apart."""
_FULL, _SLIDING, _CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
"""Kinds of layers: those that see everything before a token, the last tokens, and the tokens of the same chunk."""


@torch.inference_mode()
def reply_log_probs(
    model: Model, rows: Sequence[Asked], *, packed: bool = True
) -> list[list[Float[np.ndarray, "... answer"]]]:
    """The log-probabilities of all replies to each prompt of each row (`AnswerTree.log_probs`).

    Packed, the beginning that all prompts share (a system prompt, a judge's first words) is read once for all rows.
    A row is one sequence: what its prompts have in common once, then what is special about each, then each node of
    their trees once. A token sees only what comes before it in its own prompt and reply, and is at the position that it
    has there, so that the logits are those of the plain texts.

    Args:
        model: the model that would reply.
        rows: the prompts and trees.
        packed: False reads each prompt again with each reply, for models that cannot be given such a mask.
    """
    with model.running():
        if not packed:
            return [[tree.log_probs(_whole(model, prompt, tree)) for prompt, tree in asked] for asked in rows]
        found: list[list[Float[np.ndarray, "... answer"]]] = []
        shared = _shared(model, [prompt for asked in rows for prompt, _ in asked])
        for part in _parts(model, [_Pack.of(asked, len(shared)) for asked in rows]):
            for pack, logits in zip(part, _forward(model, shared, part), strict=True):
                trees = [tree for _, tree in pack.asked]
                found.append([tree.log_probs(logits[places]) for places, tree in zip(pack.wanted, trees, strict=True)])
        return found


def packing_is_exact(model: Model, asked: Asked) -> bool:
    """Whether a packed pass gives the same as plain ones, tried on each tree's first and last path."""
    few = [(prompt, tree.along(sorted({tree.paths[0], tree.paths[-1]}))) for prompt, tree in asked]
    if not _takes_masks(model):
        return False
    try:
        packed, _ = reply_log_probs(model, [few, few])  # two rows: with what they share read apart
    except torch.OutOfMemoryError:
        raise  # says nothing about the architecture
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # this architecture makes its own mask from one number per token
    (plain,) = reply_log_probs(model, [few], packed=False)
    # Half precision rounds differently in differently shaped batches.
    tolerance = 0.02 if model.plain.dtype == torch.float32 else 0.5
    return all(bool(np.abs(one - other).max() <= tolerance) for one, other in zip(packed, plain, strict=True))


@dataclass(frozen=True)
class _Pack:
    """The prompts and replies of one row as a sequence.

    Attributes:
        asked: what is packed.
        tokens: the token ids; those whose logits are wanted are the last ones.
        positions: the position of each in its own prompt and reply.
        sees: ``(token, token)``: whether the first has the second before it, or is it.
        wanted: for each prompt the places of its last token and of its tree's nodes, counted from the first wanted one.
        n_wanted: the number of tokens whose logits are wanted.
    """

    asked: Asked
    tokens: np.ndarray
    positions: np.ndarray
    sees: Bool[np.ndarray, "token token"]
    wanted: Sequence[Tensor]
    n_wanted: int

    @classmethod
    def of(cls, asked: Asked, shared: int) -> _Pack:
        """Pack ``asked`` without the first ``shared`` tokens of each prompt, which are the same in all."""
        trie = _Trie()
        ends = [trie.add(-1, prompt[shared:])[-1] for prompt, _ in asked]
        nodes = [[trie.add(end, node)[-1] for node in tree.nodes] for end, (_, tree) in zip(ends, asked, strict=True)]
        last = sorted({*ends, *(node for of_tree in nodes for node in of_tree)})
        order = np.array([*sorted(set(range(len(trie.tokens))) - set(last)), *last])
        place = np.argsort(order) - (len(order) - len(last))
        wanted = [torch.from_numpy(place[[end, *of_tree]]) for end, of_tree in zip(ends, nodes, strict=True)]
        sees = trie.sees()[np.ix_(order, order)]
        return cls(asked, np.array(trie.tokens)[order], shared + sees.sum(axis=1) - 1, sees, wanted, len(last))


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

    def sees(self) -> Bool[np.ndarray, "token token"]:
        """``(token, token)``: whether the second lies on the way to the first, or is it."""
        sees = np.eye(len(self.tokens), dtype=bool)
        for place, parent in enumerate(self._parents):
            if parent >= 0:
                sees[place] |= sees[parent]
        return sees


def _parts(model: Model, packs: Sequence[_Pack]) -> Iterator[list[_Pack]]:
    """Packs in the parts whose masks and logits fit into memory."""
    vocabulary = int(model.plain.config.get_text_config().vocab_size)
    longest, most = max(len(pack.tokens) for pack in packs), max(pack.n_wanted for pack in packs)
    size = max(1, _BYTES_AT_ONCE // (8 * (longest**2 + most * vocabulary)))
    for start in range(0, len(packs), size):
        yield list(packs[start : start + size])


def _shared(model: Model, prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens with which all prompts begin, if there are enough of them to be read apart; each prompt has more."""
    shortest = min(prompts, key=len)
    differ = (
        place for place in range(len(shortest) - 1) if any(prompt[place] != shortest[place] for prompt in prompts)
    )
    length = next(differ, len(shortest) - 1)
    # A cache of the last tokens alone would not hold the first ones.
    config = model.plain.config.get_text_config()
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None) or length + 1
    return tuple(shortest[:length]) if len(prompts) > 2 and _FEWEST_SHARED <= length < window else ()


def _forward(
    model: Model, shared: Sequence[int], packs: Sequence[_Pack]
) -> Iterator[Float[Tensor, "wanted vocabulary"]]:
    """The wanted logits of each pack, from one forward pass after that over ``shared``; padded on the left."""
    width, most = max(len(pack.tokens) for pack in packs), max(pack.n_wanted for pack in packs)
    ids = torch.full((len(packs), width), int(model.tokenizer.pad_token_id))
    positions = torch.zeros_like(ids)
    sees = torch.eye(width, dtype=torch.bool).repeat(len(packs), 1, 1)  # padding sees itself: nothing is not a number
    for row, pack in enumerate(packs):
        start = width - len(pack.tokens)
        ids[row, start:] = torch.from_numpy(pack.tokens)
        positions[row, start:] = torch.from_numpy(pack.positions)
        sees[row, start:, start:] = torch.from_numpy(pack.sees)
    known = inspect.signature(type(model.plain).forward).parameters
    more: dict[str, Any] = {"logits_to_keep": most} if "logits_to_keep" in known else {}
    seen = positions
    if shared:
        before = torch.tensor([shared])
        cache = model.hf(
            input_ids=before.to(model.device), use_cache=True, **({"logits_to_keep": 1} if more else {})
        ).past_key_values
        cache.batch_repeat_interleave(len(packs))
        more["past_key_values"] = cache
        sees = torch.cat([torch.ones(len(packs), width, len(shared), dtype=torch.bool), sees], dim=2)
        seen = torch.cat([torch.arange(len(shared)).repeat(len(packs), 1), positions], dim=1)
    output = model.hf(
        input_ids=ids.to(model.device),
        attention_mask=_masks(model, sees, positions[:, :, None], seen[:, None, :]),
        position_ids=positions.to(model.device),
        use_cache=bool(shared),
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
