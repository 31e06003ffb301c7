"""Where a model's blocks are, according to TransformerLens' architecture adapters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from persona_probe.errors import PersonaProbeError
from persona_probe.models.quiet import quiet_transformer_lens


def plain_model(hf: nn.Module) -> PreTrainedModel:
    """The transformers model inside ``hf``: the base of a ``PeftModel``, or ``hf`` itself, compiled or not."""
    inner = getattr(hf, "get_base_model", None)
    model = inner() if callable(inner) else hf
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, PreTrainedModel):
        raise PersonaProbeError(f"expected a transformers model, got {type(model).__name__}")
    return model


def find_blocks(hf: nn.Module) -> list[nn.Module]:
    """The transformer blocks of ``hf`` in order, as named by TransformerLens' adapter for its architecture.

    If TransformerLens has no adapter, the blocks are the model's only list of modules with as many entries as its
    config has layers; the checks at loading then decide whether the model can be read.

    Raises:
        PersonaProbeError: if the blocks are not found in either way, or not as many as the config says.
    """
    model = plain_model(hf)
    path = _known_path(model)
    expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if path is None:
        lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == expected]
        if len(lists) != 1:
            raise PersonaProbeError(
                f"the blocks of {type(model).__name__} cannot be found: TransformerLens has no adapter for it, and it "
                f"has {len(lists)} lists of {expected} modules; only causal language models that TransformerLens' "
                "TransformerBridge supports, or with one such list, can be used"
            )
        return lists[0]
    blocks = list(model.get_submodule(path).children())
    if expected is not None and len(blocks) != expected:
        raise PersonaProbeError(
            f"{type(model).__name__}: found {len(blocks)} blocks at {path!r}, the config says {expected}"
        )
    return blocks


def _known_path(model: PreTrainedModel) -> str | None:
    """The path of the blocks in TransformerLens' adapter, or None if it has none for this architecture."""
    # Imported here, since TransformerLens takes seconds to import and only models need it.
    with quiet_transformer_lens():
        from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    try:
        with quiet_transformer_lens():
            config = build_bridge_config_from_hf(model.config, type(model).__name__, "persona-probe", model.dtype)
            adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
            mapping = adapter.get_component_mapping()
    except (ValueError, KeyError, AttributeError, ImportError):
        return None
    return getattr(mapping.get("blocks"), "name", None)


def find_backbone(hf: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
    """The module that contains the blocks: it runs them and takes the KV cache, but computes no logits.

    It is found by its children: ``base_model_prefix`` names a module that is not called in OPT, and none in Llama 4.

    Raises:
        PersonaProbeError: if no module holds them in one list.
    """
    model = plain_model(hf)
    for module in model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == len(blocks) and child[0] is blocks[0]:
                return module
    raise PersonaProbeError(f"{type(model).__name__}: no module holds the {len(blocks)} blocks in one list")
