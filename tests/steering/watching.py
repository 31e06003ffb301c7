"""What steering does to the stream, forward by forward, and which tokens each scope names by its definition."""

import contextlib
from dataclasses import dataclass

import torch

import persona_probe as pp
from persona_probe.models.stream.boundary import Boundary
from tests.activations.test_capture import TALKS

ASKED = [dialogue.without_answer() for dialogue in TALKS]
NAMED = {
    "all": lambda p, prompt: True,
    "prompt": lambda p, prompt: p < prompt,
    "response": lambda p, prompt: p >= prompt,
    "generation": lambda p, prompt: p >= prompt - 1,
    "last_prompt_token": lambda p, prompt: p == prompt - 1,
    "first_k:2": lambda p, prompt: prompt - 1 <= p < prompt + 1,
    "window:1-4": lambda p, prompt: prompt <= p < prompt + 3,
    "positions:0,-2": lambda p, prompt: p in (0, prompt - 2),
}
"""Whether a scope names position ``p``, counted from the dialogue's first token, while an answer is being written."""


@dataclass
class Seen:
    """One forward: ``(row, position, d_model)`` before and after steering."""

    boundary: Boundary
    offset: int
    before: torch.Tensor
    after: torch.Tensor


@contextlib.contextmanager
def watching(model, layer):
    """Inside a steering context: the list of forwards, filled as they run."""
    forwards, before = [], []

    def first(output):
        return (output[0] if isinstance(output, tuple) else output).detach().clone()

    def enter(_module, _args, output):
        before.append(first(output))

    def leave(_module, _args, output):
        forwards.append(Seen(model.boundary, model.stream.offset, before.pop(), first(output)))

    block = model.stream.blocks[layer]
    handles = [block.register_forward_hook(enter, prepend=True), block.register_forward_hook(leave)]
    try:
        yield forwards
    finally:
        for handle in handles:
            handle.remove()


def moved_positions(forwards, prompts, vector, tolerance=1e-4):
    """Of each dialogue, the positions (of its own tokens) that were moved, checking that it was by ``vector`` exactly.

    ``prompts``: tokens of each dialogue's prompt. Also checks that padding is left alone.
    """
    found, read = [set() for _ in prompts], [set() for _ in prompts]
    for seen in forwards:
        copies = len(seen.before) // len(seen.boundary.begins)
        rows = seen.boundary.rows or range(len(seen.boundary.begins))
        changed = (seen.before != seen.after).any(dim=-1)
        displaced = (seen.after - seen.before)[changed]
        torch.testing.assert_close(displaced, vector.expand_as(displaced), rtol=0, atol=tolerance)
        for place, hit in enumerate(changed.tolist()):
            row = rows[place // copies]
            begin = int(seen.boundary.starts[place // copies]) - prompts[row]
            own = {seen.offset + column - begin: here for column, here in enumerate(hit)}
            now = {position for position, here in own.items() if here}
            assert min(now, default=0) >= 0, "padding was steered"
            assert now & read[row] == found[row] & own.keys(), "steered in one forward, not in another"
            found[row] |= now
            read[row] |= {position for position in own if position >= 0}
    return found, read


def named(scope, prompt, read):
    return {position for position in read if NAMED[scope](position, prompt)}


def prompt_lengths(model, dialogues):
    return [model.template.encode(dialogue).prompt_length for dialogue in dialogues]


def random_direction(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return pp.Direction.from_vectors(torch.randn(model.n_layers, model.d_model, generator=generator), model)


def streams(model, dialogues=TALKS, layers="all", **more):
    """Every token's stream, by dialogue: ``(position, layer, d_model)``."""
    read = pp.capture(model, dialogues, span="all", reduce="tokens", layers=layers, **more)
    rows = read.table["dialogue"].to_numpy()
    return [torch.tensor(read.values[rows == row]) for row in range(len(dialogues))]


def greedy(model, dialogues=ASKED, steps=8, **more):
    return [d.answer for d in model.generate(list(dialogues), pp.Sampling(max_new_tokens=steps, temperature=0, **more))]


def padded(model, dialogues=ASKED):
    """Ids and mask of prompts, padded on the left."""
    ids = [list(model.template.encode(dialogue).input_ids) for dialogue in dialogues]
    return model.tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left")
