"""The TransformerLens bridge of a model: the same weights in another module tree, compared with Hugging Face."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.interface import LanguageModel
from persona_probe.models.quiet import quiet_transformer_lens
from persona_probe.models.stream.blocks import plain_model
from persona_probe.models.stream.guards import LOW_PRECISION_TOLERANCE, probe_ids, relative_error
from persona_probe.models.stream.residual_stream import ResidualStream
from persona_probe.models.twin import structural_twin

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_TOLERANCE = 1e-3


def build_bridge(model: LanguageModel) -> TransformerBridge:
    """A TransformerLens bridge of a structural twin of ``model.hf``.

    Bridging ``model.hf`` itself would rename adapter keys and break saving.

    Raises:
        PersonaProbeError: if TransformerLens cannot bridge it, or if its residual stream (the layer is named) or logits
            differ from ``hf``'s by more than 1e-3 (half precision: 3e-2), padded or not, with the adapter on or, for a
            live adapter, off.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    twin = structural_twin(model.hf)
    inner = plain_model(twin)
    architecture = type(inner).__name__
    try:
        with quiet_transformer_lens(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # TransformerLens runs eager attention: some models (DeepSeek) need the mask that only eager attention gets.
            inner.set_attn_implementation("eager")
            # The bridge changes the settings of its tokenizer; ours must stay as it is.
            bridge = build_bridge_from_module(
                inner, architecture, hf_config=inner.config, tokenizer=copy.deepcopy(model.tokenizer)
            )
    except (ValueError, KeyError, AttributeError, RuntimeError, ImportError) as error:
        raise _cannot(inner, error) from error
    # Compared with another twin, since `model.hf` may be steered at this moment.
    reference: Any = structural_twin(model.hf)
    adapted = hasattr(twin, "peft_config")
    _compare(model, reference, bridge, "the adapter on" if adapted else "this model")
    if adapted:
        switched: Any = twin
        with reference.disable_adapter(), switched.disable_adapter():
            _compare(model, reference, bridge, "the adapter off")
        bridge.enable_compatibility_mode = _no_compatibility_mode
    return bridge


def _no_compatibility_mode(*_: Any, **__: Any) -> None:
    raise PersonaProbeError(
        "enable_compatibility_mode() folds weights together, which is not possible with a live adapter; load the model "
        "with merge=True and use its bridge"
    )


def _cannot(inner: Any, error: Exception) -> PersonaProbeError:
    return PersonaProbeError(f"TransformerLens cannot bridge {type(inner).__name__}: {error}; use model.hf instead")


def _compare(model: LanguageModel, reference: Any, bridge: TransformerBridge, what: str) -> None:
    ids = probe_ids(model)
    padding = ids.new_full((ids.shape[0], 3), model.tokenizer.pad_token_id)
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], dim=1)
    for rows, attention, how in (
        (ids, torch.ones_like(ids), what),
        (torch.cat([ids, padding], dim=1), mask, f"{what}, padded"),
    ):
        _compare_batch(model, reference, bridge, rows, attention, how)


def _compare_batch(
    model: LanguageModel, reference: Any, bridge: TransformerBridge, ids: Tensor, attention: Tensor, how: str
) -> None:
    real = attention.bool()

    def of_tokens(tensor: Tensor) -> Tensor:
        return tensor[real.to(tensor.device)]

    streams: dict[int, Tensor] = {}
    with torch.inference_mode():
        with ResidualStream(reference).reading(
            lambda layer, hidden: streams.update({layer: of_tokens(hidden)}), range(model.n_layers)
        ):
            expected = reference(input_ids=ids, attention_mask=attention).logits
        names = {f"blocks.{layer}.hook_out": layer for layer in range(model.n_layers)}
        try:
            logits, cache = bridge.run_with_cache(
                ids, attention_mask=attention, names_filter=lambda name: name in names
            )
        except (ValueError, KeyError, AttributeError, RuntimeError, TypeError) as error:
            raise _cannot(model.plain, error) from error
        for name, layer in names.items():
            _check_close(model, f"its {name}", how, relative_error(of_tokens(cache[name]), streams[layer]))
        _check_close(model, "its logits", how, relative_error(of_tokens(logits), of_tokens(expected)))


def _check_close(model: LanguageModel, what: str, how: str, error: float) -> None:
    tolerance = _TOLERANCE if model.plain.dtype.itemsize >= 4 else LOW_PRECISION_TOLERANCE
    if not error <= tolerance:
        raise PersonaProbeError(
            f"the TransformerLens bridge of {model.name} does not compute the same: with {how}, {what} differs from "
            f"Hugging Face's by {error:.2g} of its norm (tolerance {tolerance}); use model.hf instead, or load with "
            "merge=True if an adapter is live"
        )
