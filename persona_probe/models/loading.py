"""Loading a model from a Hub id or a local folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from persona_probe.errors import PersonaProbeError
from persona_probe.models.adapters import adapter_base, is_adapter, put_adapter
from persona_probe.models.guards import check_hooks
from persona_probe.models.model import Model
from persona_probe.models.progress_bars import without_transformers_bars

_log = logging.getLogger(__name__)


def load(
    path_or_id: str | Path,
    *,
    adapter: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Model:
    """Load a causal language model and check our hooks against it.

    Args:
        path_or_id: a local folder or Hub id of a model, or of a LoRA adapter that names its base.
        adapter: a LoRA adapter (folder or Hub id) to put on it, live.
        device: where to put it; default a GPU if there is one.
        dtype: ``torch.dtype`` or its name; default float32 on CPU, as stored on a GPU.
        revision: of the Hub repository.

    Raises:
        PersonaProbeError: if nothing loadable is there, the adapter belongs to another base, the architecture is
            unknown to TransformerLens, or the hooks disagree with Hugging Face's hidden states.
    """
    source = str(path_or_id)
    if adapter is None and is_adapter(source):
        adapter, source = source, adapter_base(source)
    place = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hf, tokenizer = _read(source, resolve_dtype(dtype, place), revision)
    hf.to(place)  # type: ignore[arg-type]
    model = Model(put_adapter(hf, adapter) if adapter is not None else hf, tokenizer, str(adapter or path_or_id))
    check_hooks(model)
    if (prompt := model.default_system_prompt) is not None:
        _log.info("%s: the chat template adds a system prompt by itself: %r", model.name, prompt)
    return model


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | str:
    """The dtype to load in: as given, else float32 on CPU (half precision is slow there) and as stored elsewhere."""
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise PersonaProbeError(f"unknown dtype {dtype!r}: give for example 'float32', 'bfloat16', 'float16' or 'auto'")
    return found


def _read(
    source: str, dtype: torch.dtype | str, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise PersonaProbeError(f"{source}: is no model folder: it has no config.json (it holds {inside})")
    if folder.is_file():
        raise PersonaProbeError(f"{source}: is a file; give the folder that holds the model's config.json")
    if not folder.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise PersonaProbeError(f"{source}: no such folder, and not a Hub id of the form owner/name")
    try:
        with without_transformers_bars():
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, revision=revision, dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise PersonaProbeError(f"{source}: cannot be loaded as a causal language model: {first}") from error
    hf, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise PersonaProbeError(
            f"{source}: its weight files lack {len(missing)} of the model's parameters (first {missing[0]!r}), which "
            "would be made up at random; the folder is incomplete or of another architecture"
        )
    return hf, tokenizer
