"""One pass of texts through one model or several: only the backbone runs, and only up to the deepest layer read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving
from persona_probe.activations.reductions import Batch, Reduction
from persona_probe.clock import working
from persona_probe.dialogue.encoding import Encoded
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.twin import is_offloaded


class _DeepEnough(Exception):  # noqa: N818  (nothing went wrong)
    """The deepest wanted layer has been read."""


def run_pass(
    readers: Sequence[tuple[Model, Reduction]],
    encoded: Sequence[Encoded],
    spans: Sequence[slice],
    *,
    tokens_per_batch: int,
    progress: bool,
    label: str = "capture",
) -> None:
    """Run every batch through each model in turn, and reduce its residual stream with the model's reduction.

    What comes after a span cannot change what is in it (the models are causal), so texts are cut at their span's end.

    Args:
        readers: models, each with the reduction of its stream; all read the same tokens.
        encoded: the dialogues.
        spans: which tokens of each dialogue are reduced.
        tokens_per_batch: padded tokens per forward pass; a batch that does not fit into a GPU's memory is halved.
        progress: show a bar with tokens per second and the time left.
        label: the bar's label.
    """
    lengths = [span.stop for span in spans]
    with (
        working("reading") as spent,
        tqdm(
            total=sum(lengths) * len(readers),
            desc=label,
            unit="tok",
            unit_scale=True,
            disable=not progress,
            leave=False,
        ) as bar,
    ):
        border = longest_alike(readers[0][0].plain.config)
        for rows in batches(lengths, tokens_per_batch, border):
            for model, reduction in readers:
                halving(rows, _runner(model, reduction, encoded, spans), lambda row: encoded[row].dialogue.name)
                spent.tokens += sum(lengths[row] for row in rows)
                bar.update(sum(lengths[row] for row in rows))


def _runner(
    model: Model, reduction: Reduction, encoded: Sequence[Encoded], spans: Sequence[slice]
) -> Callable[[list[int]], None]:
    deepest = max(reduction.layers)
    # Hooks after a block's forward pass put offloaded weights away, so that such a pass must not be cut short.
    stop_early = deepest < model.n_layers - 1 and not is_offloaded(model.stream.backbone)

    @torch.inference_mode()
    def run(rows: list[int]) -> None:
        batch = padded(model, rows, encoded, spans)
        reduction.begin()

        def read(layer: int, hidden: Tensor) -> None:
            reduction.see(layer, hidden, batch)
            if stop_early and layer == deepest:
                raise _DeepEnough

        with (
            model.at_boundary(
                Boundary.of_dialogues([encoded[row] for row in rows], rows, model.template, len(encoded))
            ),
            contextlib.suppress(_DeepEnough),
            model.stream.reading(read, reduction.layers),
        ):
            model.stream.backbone(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False)
        reduction.commit(batch)

    return run


def padded(model: Model, rows: list[int], encoded: Sequence[Encoded], spans: Sequence[slice]) -> Batch:
    """A right-padded batch on the model's device: positions are the same as without padding, in every architecture."""
    width = max(spans[row].stop for row in rows)
    ids = torch.full((len(rows), width), model.tokenizer.pad_token_id)
    real, inside = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        stop = spans[row].stop
        ids[i, :stop] = torch.tensor(encoded[row].input_ids[:stop])
        real[i, :stop] = True
        inside[i, spans[row]] = True
    return Batch(rows, ids.to(model.device), real.to(model.device), inside.to(model.device))
