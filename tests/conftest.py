"""Tiny models with real architectures, made on the spot."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from persona_probe.models.loading import load
from persona_probe.models.model import Model
from persona_probe.worlds.persona_world.tokenizer import build_tokenizer

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints" / "persona-world"
SHARED = Path(__file__).parents[2] / "shared" / "data"
N_LAYERS, D_MODEL = 3, 32


def _config(kind: str, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    rope = {
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    if kind == "llama":
        return LlamaConfig(**rope, **special)
    if kind == "qwen2":
        return Qwen2Config(**rope, **special, use_sliding_window=False)
    if kind == "gpt2":
        return GPT2Config(n_embd=D_MODEL, n_layer=N_LAYERS, n_head=4, n_positions=256, **special)
    return GPTNeoXConfig(
        hidden_size=D_MODEL,
        intermediate_size=48,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=256,
        **special,
    )


ARCHITECTURES = ("llama", "qwen2", "gpt2", "gpt_neox")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """A folder with a tiny random model of an architecture."""
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(_config(kind, tokenizer))
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return folder


@pytest.fixture
def llama(folders: Callable[[str], Path]) -> Model:
    return load(folders("llama"))


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Model:
    return load(folders(request.param))


@pytest.fixture(scope="session")
def chat() -> Model:
    """Persona World's chat model."""
    return load(CHECKPOINTS / "chat")
