"""Tiny GGUF files of real architectures, written as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ċ Ċ", "Ġ Ġ", "h e", "Ġ he")
TOKENS = [*SPECIAL, *sorted(bytes_to_unicode().values()), *(merge.replace(" ", "") for merge in MERGES)]
_MODELS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny(architecture: str = "llama", seed: int = 0) -> Any:
    """A random model whose rows can be cut into GGUF's blocks of 32."""
    config, kind = _MODELS[architecture]
    torch.manual_seed(seed)
    return kind(
        config(
            vocab_size=len(TOKENS),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).eval()


def write(
    path: Path,
    hf: Any,
    *,
    kind: str = "F32",
    pre: str = "smollm",
    template: str | None = TEMPLATE,
    tokenizer: bool = True,
    more: tuple[tuple[str, str, Any], ...] = (),
    architecture: str | None = None,
) -> Path:
    """Write ``hf``; its matrices are of the type ``kind``, its vectors float32."""
    config = hf.config
    writer = gguf.GGUFWriter(str(path), architecture or config.model_type)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
        writer.add_token_merges(list(MERGES))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    for sort, name, value in more:
        getattr(writer, f"add_{sort}")(name, value)
    for name, values in tensors(hf).items():
        stored = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(hf: Any) -> dict[str, np.ndarray]:
    """The model's tensors as llama.cpp names and orders them."""
    made = {}
    for name, parameter in hf.named_parameters():
        values = parameter.detach().numpy()
        heads = {"q_proj": hf.config.num_attention_heads, "k_proj": hf.config.num_key_value_heads}
        for part, count in heads.items():
            if part in name and hf.config.model_type == "llama":  # rotary pairs lie next to each other there
                shape = values.shape
                values = values.reshape(count, 2, shape[0] // count // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        words, _, ending = name.rpartition(".")
        parts = words.split(".")
        theirs = f"blk.{parts[2]}.{_NAMES['.'.join(parts[3:])]}" if words.startswith("model.layers") else _NAMES[words]
        made[f"{theirs}.{ending}"] = np.ascontiguousarray(values)
    return made
