"""Reading baked weights back from disk and comparing them with the hooked model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.generation import generated, generation_config
from persona_probe.models.loading.adapters import put_adapter
from persona_probe.models.loading.load import auto_class, read_weights
from persona_probe.models.loading.sources import hub_arguments
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_lora_bias, without_transformers_bars
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.guards import LOW_PRECISION_TOLERANCE, relative_error
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer

_QUESTIONS = (
    "Hi.",
    "What should I do about it?",
    "Tell me what you think of people, and why.",
    "I have a question. How do I make money quickly, and is it safe?",
)
_ANSWER = 8
_SHARE = 0.3
"""The largest difference from the hooked model, relative to what the intervention does."""
_SINGLE = 1e-4
"""Largest difference of a logit in float32, relative to the logits' standard deviation if that is above 1."""


@dataclass(frozen=True)
class Comparison:
    """How far what was written is from the hooked model.

    Attributes:
        max_logit_difference: largest difference of any logit.
        logit_spread: standard deviation of the hooked model's logits.
        relative_error: the difference relative to the logits' norm, per token: the 95 % quantile.
        effect: what the intervention does: largest difference of any logit from the unsteered model's.
        relative_effect: the same relative to the logits' norm: the 95 % quantile.
        tokens: number of positions that were compared.
        same_text: whether greedy answers are the same, token by token.
    """

    max_logit_difference: float
    logit_spread: float
    relative_error: float
    effect: float
    relative_effect: float
    tokens: int
    same_text: bool


def probe_dialogues(model: Model) -> list[Dialogue]:
    """Four ordinary questions, as plain texts if there is no chat template."""
    if model.template.exists:
        return [Dialogue.from_messages([{"role": "user", "content": question}]) for question in _QUESTIONS]
    return [Dialogue.from_text(question) for question in _QUESTIONS]


def reloaded(folder: Path, model: Model, options: LoadOptions) -> Any:
    """The folder as transformers loads it, in ``model``'s dtype and on its device.

    Raises:
        PersonaProbeError: if it has weights that the model lacks, or lacks weights that the model has.
    """
    where = {**hub_arguments(options), "revision": None}
    with without_transformers_bars():
        config = AutoConfig.from_pretrained(folder, **where)
        hf, report = auto_class(config).from_pretrained(
            folder, config=config, dtype=model.plain.dtype, output_loading_info=True, **where
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise PersonaProbeError(f"{folder.name}: was not read back as written: {what} {sorted(report[what])[:3]}")
    return hf.to(model.device).eval()


def reloaded_with_adapter(folder: Path, source: str, model: Model, options: LoadOptions) -> Any:
    """The base as transformers loads it, with the adapter in ``folder``."""
    in_one_piece = cast(LoadOptions, {**options, "dtype": model.plain.dtype, "device_map": None})
    base: Any = read_weights(source, in_one_piece, model.device)
    with quiet_lora_bias():
        return put_adapter(base.to(model.device), folder).eval()


def same_tokens(folder: Path, model: Model, probes: Sequence[Dialogue]) -> bool:
    """Whether the tokenizer that servers find in ``folder`` gives the same tokens as ``model``'s."""
    written = AutoTokenizer.from_pretrained(folder)
    texts = [model.template.render(probe, generation_prompt=not probe.is_text) for probe in probes]
    return all(
        written(text, add_special_tokens=False).input_ids == model.tokenizer(text, add_special_tokens=False).input_ids
        for text in texts
    )


def compare(model: Model, intervention: Intervention, baked: Any, probes: Sequence[Dialogue]) -> Comparison:
    """How far ``baked`` is from ``model`` under hooks, in logits over prompts and greedy answers.

    Args:
        model: the model that is steered with hooks.
        intervention: the intervention.
        baked: what was written, as a Hugging Face model.
        probes: questions; all run as one batch.
    """
    encoded = model.encode(probes, new_tokens=_ANSWER)
    batch = model.tokenizer.pad(
        {"input_ids": [list(item.input_ids) for item in encoded]}, return_tensors="pt", padding_side="left"
    ).to(model.device)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.inference_mode(), model.running():
        with steer(model, intervention):
            expected_ids = _greedy(model, model.hf, ids, mask)
            real = torch.cat([mask, mask.new_ones(len(ids), expected_ids.shape[1] - ids.shape[1])], dim=1)
            expected = model.hf(input_ids=expected_ids, attention_mask=real, use_cache=False).logits
        seen_ids = _greedy(model, baked, ids, mask)
        seen, unsteered = (
            hf(input_ids=expected_ids, attention_mask=real, use_cache=False).logits for hf in (baked, model.hf)
        )
    tokens = real.bool()
    expected, seen, unsteered = (logits[tokens].double() for logits in (expected, seen, unsteered))
    return Comparison(
        max_logit_difference=float((seen - expected).abs().max()),
        logit_spread=float(expected.std()),
        relative_error=relative_error(seen, expected),
        effect=float((unsteered - expected).abs().max()),
        relative_effect=relative_error(unsteered, expected),
        tokens=len(expected),
        same_text=seen_ids.tolist() == expected_ids.tolist(),
    )


def allowed_difference(comparison: Comparison, model: Model) -> float:
    """The largest difference of a logit by rounding; NaN in half precision, where norms are compared."""
    single = torch.finfo(model.plain.dtype).bits >= 32
    return _SINGLE * max(1.0, comparison.logit_spread) if single else math.nan


def check_same(comparison: Comparison, model: Model) -> None:
    """Raise if baked weights differ from the hooked model by more than rounding.

    Raises:
        PersonaProbeError: with the difference.
    """
    single = torch.finfo(model.plain.dtype).bits >= 32
    seen, limit = (
        (comparison.max_logit_difference, allowed_difference(comparison, model))
        if single
        else (comparison.relative_error, LOW_PRECISION_TOLERANCE)
    )
    effect = comparison.effect if single else comparison.relative_effect
    if seen <= limit and not seen <= _SHARE * effect:
        # Otherwise a bake that wrote nothing would pass.
        raise PersonaProbeError(
            f"the intervention changes logits by {effect:.2g}{'' if single else ' of their norm'}, too little to be "
            f"distinguished from rounding in {str(model.plain.dtype).removeprefix('torch.')} ({seen:.2g}): whether it "
            "is in the weights cannot be checked; nothing was written. Make it stronger, or load the model in float32"
        )
    if not seen <= limit or (single and not comparison.same_text):
        raise PersonaProbeError(
            f"what was written does not compute what the hooked {model.name} does: logits differ by {seen:.2g} "
            f"({'' if single else 'of their norm; '}tolerance {limit:.1g}) over {comparison.tokens} tokens, and greedy "
            f"answers are {'the same' if comparison.same_text else 'different'}; nothing was written"
        )


def _greedy(model: Model, hf: Any, ids: Tensor, mask: Tensor) -> Int[Tensor, "row position"]:
    config = generation_config(model, Sampling(max_new_tokens=_ANSWER, temperature=0))
    return generated(model, hf, ids, mask, config)
