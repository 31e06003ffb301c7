"""Where a model's blocks are, asked of TransformerLens' architecture adapters: no list of architectures of our own."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from persona_probe.errors import PersonaProbeError


@contextlib.contextmanager
def quiet_transformer_lens() -> Iterator[None]:
    """Keep TransformerLens' progress lines and prints off the screen while it is asked or built."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


def plain_model(hf: nn.Module) -> PreTrainedModel:
    """The Hugging Face model itself: what is inside a ``PeftModel``, or ``hf``."""
    inner = getattr(hf, "get_base_model", None)
    model = inner() if callable(inner) else hf
    if not isinstance(model, PreTrainedModel):
        raise PersonaProbeError(f"expected a transformers model, got {type(model).__name__}")
    return model


def backbone(hf: nn.Module) -> nn.Module:
    """The model below the language-model head: the module whose forward takes the KV cache."""
    model = plain_model(hf)
    inner = getattr(model, model.base_model_prefix, None)
    if not isinstance(inner, nn.Module):
        raise PersonaProbeError(f"{type(model).__name__} has no backbone module {model.base_model_prefix!r}")
    return inner


def find_blocks(hf: nn.Module) -> list[nn.Module]:
    """The transformer blocks of ``hf`` in order, as named by TransformerLens' adapter for its architecture.

    Raises:
        PersonaProbeError: if TransformerLens knows no adapter for the architecture, or the adapter's path names no
            list of blocks of the expected length.
    """
    # Imported here: TransformerLens takes seconds to import, and only models need it.
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    model = plain_model(hf)
    architecture = type(model).__name__
    try:
        with quiet_transformer_lens():
            config = build_bridge_config_from_hf(model.config, architecture, "persona-probe", model.dtype)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
            mapping = adapter.get_component_mapping()
    except (ValueError, KeyError, AttributeError) as error:
        raise PersonaProbeError(
            f"TransformerLens has no adapter for the architecture {architecture}, so its blocks cannot be found "
            f"({error}); "
            "only causal language models that TransformerLens' TransformerBridge supports can be used"
        ) from error
    path = getattr(mapping.get("blocks"), "name", None)
    if path is None:
        raise PersonaProbeError(f"TransformerLens' adapter for {architecture} names no blocks")
    blocks = list(model.get_submodule(path).children())
    expected = getattr(model.config.get_text_config(), "num_hidden_layers", len(blocks))
    if len(blocks) != expected:
        raise PersonaProbeError(f"{architecture}: found {len(blocks)} blocks at {path!r}, the config says {expected}")
    return blocks
