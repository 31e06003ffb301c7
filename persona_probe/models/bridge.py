"""The TransformerLens bridge of a model: same weights, its own module tree, checked against Hugging Face."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.models.blocks import plain_model, quiet_transformer_lens
from persona_probe.models.guards import probe_ids
from persona_probe.models.twin import structural_twin

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from persona_probe.models.model import Model

_TOLERANCE = 1e-3


def build_bridge(model: Model) -> TransformerBridge:
    """Bridge a structural twin of ``model.hf`` (bridging in place would rename adapter keys and break saving).

    Raises:
        PersonaProbeError: if TransformerLens cannot bridge it, or if its logits differ from ``hf``'s by more than
            1e-3 of the largest logit, with the adapter on or (for a live adapter) off.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    twin = structural_twin(model.hf)
    inner = plain_model(twin)
    architecture = type(inner).__name__
    try:
        with quiet_transformer_lens(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The bridge sets its tokenizer up in its own way; ours must stay as it is.
            bridge = build_bridge_from_module(
                inner, architecture, hf_config=inner.config, tokenizer=copy.deepcopy(model.tokenizer)
            )
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise PersonaProbeError(f"TransformerLens cannot bridge {architecture}: {error}") from error
    # A twin of its own, since `model.hf` may be being steered.
    reference: Any = structural_twin(model.hf)
    _compare(model, reference, bridge, "the adapter on" if twin is not inner else "this model")
    if twin is not inner:
        switched: Any = twin
        with reference.disable_adapter(), switched.disable_adapter():
            _compare(model, reference, bridge, "the adapter off")
    return bridge


def _compare(model: Model, reference: Any, bridge: TransformerBridge, what: str) -> None:
    ids = probe_ids(model)
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits.float()
        seen = bridge(ids).float()
    error = float((seen - expected).abs().max() / expected.abs().max().clamp_min(1e-9))
    if not error <= _TOLERANCE:
        raise PersonaProbeError(
            f"the TransformerLens bridge of {model.name} is not the same model: with {what}, its logits differ from "
            f"Hugging Face's by {error:.2g} of the largest logit (tolerance {_TOLERANCE}); use model.hf instead, or "
            "merge the adapter before loading"
        )
