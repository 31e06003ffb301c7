"""Adapters as other people's training leaves them: made with PEFT alone, with the logits of what was trained."""

import copy
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from persona_probe.models.loading.load import auto_class

IDS = torch.arange(20, 36)[None]
WEIGHTS = "adapter_model.safetensors"


def lora(**more: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **more})


def tied_llama(base: Path, out: Path) -> Path:
    """A copy of the Llama at ``base`` whose head is its embedding."""
    shutil.copytree(base, out)
    hf = auto_class(AutoConfig.from_pretrained(base)).from_pretrained(base)
    hf.config.tie_word_embeddings = True
    hf.tie_weights()
    hf.save_pretrained(out)
    return out


def trained(
    base: Path, out: Path, config: PeftConfig, before: Callable[[Any], Any] | None = None, **save: Any
) -> tuple[Path, Tensor]:
    """The folder of an adapter on ``base``, and the logits of the model that it was saved from.

    ``before`` changes the base first, as scripts do that add tokens; ``save`` is for PEFT's ``save_pretrained``.
    """
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hf = auto_class(AutoConfig.from_pretrained(base)).from_pretrained(base)
        if before is not None:
            before(hf)
        tuned = get_peft_model(hf, copy.deepcopy(config)).eval()  # PEFT writes into it
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        tuned.save_pretrained(out, **save)
        return out, logits(tuned)


def logits(hf: Any) -> Tensor:
    with torch.inference_mode():
        return hf(input_ids=IDS).logits.clone()


def off(seen: Tensor, expected: Tensor) -> float:
    return float((seen - expected).abs().max())


def rewrite(adapter: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Write the adapter's file again with other tensors."""
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)
