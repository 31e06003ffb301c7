"""The dialogues in which a latent is most active, with its activation at every token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, check_span
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.description.describe_result import LatentExample
from persona_probe.latents.description.firing import PickedLatents, kept_by_rule
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.encoding.kept_tokens import KeptTokens
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model


def top_examples(
    model: Model,
    sae: Sae,
    statistics: LatentStatistics,
    dialogues: Sequence[Dialogue],
    latents: Sequence[int],
    n: int = 5,
    *,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
) -> list[LatentExample]:
    """The dialogues in which each latent is most active, read again for the activation at every token.

    Args:
        model: the model of ``statistics``.
        sae: the SAE of ``statistics``.
        statistics: from `persona_probe.latents.encode_latents`, which stores where each latent was most active.
        dialogues: the dialogues that were read then, in the same order; only the examples are read again.
        latents: which latents.
        n: number of examples per latent, at most as many as ``statistics`` has stored.
        sink_ratio: as it was given to `persona_probe.latents.encode_latents`.
        tokens_per_batch: padded tokens per forward pass.

    Returns:
        The examples, latent after latent, the strongest first; none for a latent that was never active.

    Raises:
        PersonaProbeError: if model, SAE or dialogues are not those of ``statistics``, or a latent does not exist.
    """
    check_types(
        model=(model, Model),
        sae=(sae, Sae),
        statistics=(statistics, LatentStatistics),
        dialogues=(dialogues, [Dialogue]),
        n=(n, WHOLE),
    )
    check_source(sae, model, statistics, dialogues)
    wanted = sae.check_latents(latents)
    top = {latent: statistics.examples.of(latent)[:n] for latent in wanted}
    rows = sorted({row for examples in top.values() for row, _, _ in examples})
    if not rows:
        return []
    encoded = model.encode([dialogues[row] for row in rows])
    spans = [item.span(check_span(statistics.source["span"])) for item in encoded]
    place = {row: number for number, row in enumerate(rows)}
    pairs = {(place[row], latent) for latent, examples in top.items() for row, _, _ in examples}
    reduction = _TokenLatents(sae, encoded, kept_by_rule(sae, model, len(rows), sink_ratio), wanted, pairs)
    # From the first token to the end of the span, so that the rule finds the same sinks as before.
    whole = [slice(0, span.stop) for span in spans]
    budget = tokens_per_batch or tokens_per_batch_for(model.device)
    run_pass([(model, reduction)], encoded, whole, tokens_per_batch=budget, progress=False)
    pieces = [token_texts(model, item) for item in encoded]
    return [
        _example(latent, encoded[place[row]], spans[place[row]], pieces[place[row]], acts, peak, value)
        for latent, examples in top.items()
        for row, peak, value in examples
        for acts in [reduction.values[place[row], latent]]
    ]


def check_source(sae: Sae, model: Model, statistics: LatentStatistics, dialogues: Sequence[Dialogue]) -> None:
    """Raise if statistics are of another model (or of a steered one), SAE or number of dialogues.

    Raises:
        PersonaProbeError: if so; the message says what differs.
    """
    source, count = statistics.source, int(statistics.dialogues.sum())
    if source["model_hash"] != model.fingerprint():
        raise PersonaProbeError(
            f"the statistics are of {source['model']} ({source['model_hash']}), and this model is {model.name} "
            f"({model.fingerprint()}); give the model that they were made with, in the state it was in"
        )
    if bool(source.get("steered")) != model.steered:
        raise PersonaProbeError(
            f"the statistics are of {source['model']} {'with' if source.get('steered') else 'without'} steering, and "
            f"now it is {'steered' if model.steered else 'not steered'}; read both in the same state"
        )
    if (source["sae"], source["layer"]) != (sae.name, sae.layer):
        raise PersonaProbeError(
            f"the statistics are of the SAE {source['sae']} at layer {source['layer']}, and this is {sae.name} at "
            f"layer {sae.layer}"
        )
    if count != len(dialogues):
        raise PersonaProbeError(
            f"the statistics are of {count} dialogues, and {len(dialogues)} are given; give those they were made from"
        )


def token_texts(model: Model, encoded: Encoded) -> list[str]:
    """The text of a dialogue in pieces, one per token; joined they give the rendering.

    Decoding single tokens would lose their spaces with some tokenizers. Where one character takes several tokens, the
    later ones have no text of their own, and are shown as the tokenizer decodes them.
    """
    dialogue, tokenizer = encoded.dialogue, model.tokenizer
    text = model.template.render(dialogue, generation_prompt=not dialogue.is_text and dialogue.answer is None)
    marked = tokenizer(text, add_special_tokens=dialogue.is_text, return_offsets_mapping=True)
    if tuple(marked["input_ids"]) != tuple(encoded.input_ids):
        return [str(tokenizer.decode([token])) for token in encoded.input_ids]
    pieces: list[str] = []
    done = 0
    for token, (_, stop) in zip(encoded.input_ids, marked["offset_mapping"], strict=True):
        pieces.append(text[done:stop] or str(tokenizer.decode([token])))
        done = max(done, stop)
    return pieces


class _TokenLatents(PickedLatents):
    """The activation at every token, for the wanted pairs of a dialogue and a latent."""

    def __init__(
        self,
        sae: Sae,
        encoded: Sequence[Encoded],
        kept: KeptTokens,
        latents: Sequence[int],
        pairs: set[tuple[int, int]],
    ) -> None:
        super().__init__(sae, encoded, kept, latents)
        self.pairs = pairs
        self.values: dict[tuple[int, int], Float[np.ndarray, "... token"]] = {}

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Pick the wanted latents at every kept token."""
        tokens, places = self.tokens(layer, hidden, batch)
        acts, places = self.picked(tokens).cpu(), places.cpu()
        picked = {}
        for i, row in enumerate(batch.rows):
            of_row = places[:, 0] == i
            positions, activations = places[of_row, 1], acts[of_row]
            for column, latent in enumerate(self.latents):
                if (row, latent) in self.pairs:
                    line = torch.full((len(self.encoded[row].input_ids),), torch.nan)
                    line[positions] = activations[:, column]
                    picked[row, latent] = line.numpy()
        self._pending[layer] = picked

    def commit(self, batch: Batch) -> None:
        """Add the batch."""
        for picked in self._pending.values():
            self.values.update(picked)
        self.kept.commit(batch.rows)


def _example(
    latent: int,
    encoded: Encoded,
    span: slice,
    pieces: Sequence[str],
    acts: Float[np.ndarray, "... token"],
    peak: int,
    value: float,
) -> LatentExample:
    activations = [float(act) for act in acts]
    # A span that consists only of sinks stays whole, and is then read after all.
    if math.isnan(activations[peak]):
        activations[peak] = value
    dialogue = encoded.dialogue
    name = dialogue.id if dialogue.id is not None else dialogue.messages[0].content[:40]
    labels = {str(key): str(label) for key, label in dialogue.labels.items() if label is not None}
    return LatentExample(latent, name, tuple(pieces), tuple(activations), span.start, span.stop, peak, labels)
