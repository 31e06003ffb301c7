"""The check made when a model is loaded: do our hooks read the residual stream that Hugging Face reports?"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.interface import LanguageModel
from persona_probe.models.stream.layers import LAYER_CONVENTION

_PROBE_LENGTH = 12
_PADDING = 3
_Read = tuple[dict[int, Tensor], tuple[Tensor, ...]]
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
LOW_PRECISION_TOLERANCE = 3e-2


def probe_ids(model: LanguageModel) -> Tensor:
    """A fixed batch of token ids, ``(2, 12)``: pseudo-random, without special tokens."""
    special = set(model.tokenizer.all_special_ids)
    size = min(len(model.tokenizer), int(model.plain.config.get_text_config().vocab_size))
    ordinary = [token for token in range(size) if token not in special]
    picks = torch.randint(len(ordinary), (2, _PROBE_LENGTH), generator=torch.Generator().manual_seed(0))
    return torch.tensor(ordinary)[picks].to(model.device)


def _read(model: LanguageModel, ids: Tensor, mask: Tensor, position_ids: Tensor | None = None) -> _Read:
    seen: dict[int, Tensor] = {}
    places = {} if position_ids is None else {"position_ids": position_ids}
    with (
        _runs(model),
        torch.inference_mode(),
        model.stream.reading(lambda layer, hidden: seen.update({layer: hidden}), range(model.n_layers)),
    ):
        output = model.stream.backbone(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False, return_dict=True, **places
        )
    return seen, output.hidden_states


@contextlib.contextmanager
def _runs(model: LanguageModel) -> Iterator[None]:
    try:
        yield
    except (PersonaProbeError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, IndexError, KeyError) as error:
        reason = library_message(error) if str(error) else f"{type(error).__name__} without a message"
        raise PersonaProbeError(
            f"{model.name}: was loaded, but cannot read a text: {reason}; does its config.json (quantization_config, "
            "sizes) describe its weights?"
        ) from error


def check_hooks(model: LanguageModel) -> None:
    """Compare our hooks with Hugging Face's ``hidden_states`` on a batch: unpadded, padded right and left, cut short.

    Only the last layer is not compared with Hugging Face, which returns it after the final norm; it must still be the
    same with and without padding.

    Raises:
        PersonaProbeError: naming the layer and the size of the difference.
    """
    tolerance = _TOLERANCE.get(model.plain.dtype, LOW_PRECISION_TOLERANCE)
    ids = probe_ids(model)
    plain, reported = _read(model, ids, torch.ones_like(ids))
    if len(reported) != model.n_layers + 1:
        raise PersonaProbeError(
            f"{model.name}: Hugging Face reports {len(reported)} hidden states for {model.n_layers} blocks; "
            f"expected one more than there are blocks ({LAYER_CONVENTION})"
        )
    _compare(model, plain, reported, slice(None), plain, tolerance, "")
    shorter, _ = _read(model, ids[:, :-_PADDING], torch.ones_like(ids[:, :-_PADDING]))
    for layer in range(model.n_layers):
        begun = plain[layer][:, :-_PADDING]
        _check_close(model, layer, begun, shorter[layer], tolerance, "the same text without its last tokens")
    padding = ids.new_full((ids.shape[0], _PADDING), model.tokenizer.pad_token_id)
    blank, real = torch.zeros_like(padding), torch.ones_like(ids)
    for side, rows, mask, inside in (
        ("right", [ids, padding], [real, blank], slice(None, ids.shape[1])),
        ("left", [padding, ids], [blank, real], slice(_PADDING, None)),
    ):
        attention = torch.cat(mask, dim=1)
        places = (attention.cumsum(dim=1) - 1).clamp_min(0) if _takes_positions(model) else None
        padded, reported = _read(model, torch.cat(rows, dim=1), attention, places)
        _compare(model, padded, reported, inside, plain, tolerance, f", padded on the {side}")


def _takes_positions(model: LanguageModel) -> bool:
    return "position_ids" in inspect.signature(model.stream.backbone.forward).parameters


def _compare(
    model: LanguageModel,
    seen: dict[int, Tensor],
    reported: tuple[Tensor, ...],
    inside: slice,
    unpadded: dict[int, Tensor],
    tolerance: float,
    how: str,
) -> None:
    for layer in range(model.n_layers):
        here = seen[layer][:, inside]
        if layer < model.n_layers - 1:
            theirs = reported[layer + 1][:, inside].to(here.device)
            _check_close(model, layer, here, theirs, tolerance, f"Hugging Face's hidden states{how}")
        _check_close(model, layer, here, unpadded[layer], tolerance, f"the same batch without padding{how}")


def relative_error(seen: Tensor, expected: Tensor) -> float:
    """The norm of the difference relative to the expected norm, per token: the 95 % quantile over tokens.

    In a norm over all tokens at once, an attention sink would hide that everything else is wrong.
    """
    seen, expected = seen.double(), expected.double()
    errors = (seen - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)
    return float(errors.flatten().quantile(0.95))


def _check_close(
    model: LanguageModel,
    layer: int,
    seen: Tensor,
    expected: Tensor,
    tolerance: float,
    what: str,
) -> None:
    error = relative_error(seen, expected)
    if math.isnan(error):
        raise PersonaProbeError(
            f"{model.name}: its activations at layer {layer} are not finite (NaN or infinite); look at its weights, or "
            "load it with another dtype"
        )
    if not error <= tolerance:
        raise PersonaProbeError(
            f"{model.name}: the activations our hook reads at layer {layer} differ from {what} by {error:.2g} of their "
            f"norm (tolerance {tolerance:.1g}); measurements on this model would be wrong, so it is refused"
        )
