"""A model with random weights, written to a folder once or built where it runs; and a random LoRA adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen2Tokenizer

import persona_probe as pp
from benchmarks.shapes import Shape
from benchmarks.tokenizer import build_tokenizer
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.quiet import quiet_peft, without_transformers_bars

RANK = 8


def model_folder(root: Path, shape: Shape) -> Path:
    """The folder of the model under ``root``; it is written on first use."""
    folder = root / shape.name
    if not folder.exists():
        torch.manual_seed(0)
        with without_transformers_bars():
            AutoModelForCausalLM.from_config(shape.config()).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
    return folder


def open_model(root: Path, shape: Shape, device: str) -> pp.Model:
    if shape.on_disk:
        return pp.load(model_folder(root, shape), device=device)
    folder = root / shape.name
    if not folder.exists():
        build_tokenizer().save_pretrained(folder)  # TransformerLens needs a tokenizer that was read from a folder
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(shape.config(), dtype=getattr(torch, shape.dtype))
    return pp.Model(hf, ChatTemplate(Qwen2Tokenizer.from_pretrained(folder)), shape.name)


def adapter_folder(root: Path, shape: Shape) -> Path:
    """The folder of a rank-8 adapter with small random numbers on every linear layer; it is written on first use."""
    folder = root / f"{shape.name}-adapter"
    if not folder.exists():
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(shape.config())
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        with quiet_peft():
            tuned = get_peft_model(base, config, low_cpu_mem_usage=True)
        generator = torch.Generator().manual_seed(0)
        empty = get_peft_model_state_dict(tuned, save_embedding_layers=False)
        weights = {name: 0.01 * torch.randn(value.shape, generator=generator) for name, value in empty.items()}
        folder.mkdir(parents=True)
        save_file(weights, folder / "adapter_model.safetensors")
        config.base_model_name_or_path = str(root / shape.name)
        config.inference_mode = True
        config.save_pretrained(folder)
    return folder
