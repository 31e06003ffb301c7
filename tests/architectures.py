"""Tiny random models with real architectures, from Hugging Face's own configs."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.loading.load import auto_class
from persona_probe.models.model import Model

N_LAYERS, D_MODEL = 3, 32
WINDOW = 8
"""Of sliding attention: shorter than the dialogues of the tests, so that it matters."""
SPREAD = 0.1
"""Of the random weights: at the usual 0.02 attention is nearly uniform, and mistakes in it too small to be seen."""

_NEOX = {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": SPREAD,
}
_LLAMA = {**_NEOX, "num_key_value_heads": 2}
_WIDE = {**_LLAMA, "head_dim": 16}
"""Heads that together are wider than the residual stream, as in Qwen3 and Gemma."""
_GPT = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 256, "initializer_range": SPREAD}
_FALCON = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "initializer_range": SPREAD,
}
_OPT = {
    "hidden_size": D_MODEL,
    "ffn_dim": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "init_std": SPREAD,
}
_SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_SMALL_EXPERTS = {**_EXPERTS, "moe_intermediate_size": 24}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_DEEPSEEK = {
    **_NEOX,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "layer_types": ["mamba", "attention", "mamba"],
    "shared_intermediate_size": 24,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def _of(name: str, *parts: dict[str, Any], **settings: Any) -> Callable[[dict[str, Any]], PretrainedConfig]:
    merged = {key: value for part in (*parts, settings) for key, value in part.items()}
    return lambda special: getattr(transformers, name)(**merged, **special)


def _gemma3_vision(special: dict[str, Any]) -> PretrainedConfig:
    text = transformers.Gemma3TextConfig(**_WIDE, **_SLIDING, query_pre_attn_scalar=16, **special)
    # The tests show no images, so any numbers will do for an image's tokens.
    image = {"boi_token_index": 50, "eoi_token_index": 51, "image_token_index": 52, "mm_tokens_per_image": 4}
    return transformers.Gemma3Config(text_config=text.to_dict(), vision_config=_VISION, **image)


def _gemma4_vision(special: dict[str, Any]) -> PretrainedConfig:
    text = transformers.Gemma4TextConfig(**_WIDE, **_SLIDING, hidden_size_per_layer_input=8, **special)
    vision = {**_VISION, "head_dim": 8, "num_key_value_heads": 2, "position_embedding_size": 64}
    return transformers.Gemma4Config(text_config=text.to_dict(), vision_config=vision, audio_config=None)


def _llava(special: dict[str, Any]) -> PretrainedConfig:
    text = transformers.LlamaConfig(**_LLAMA, **special)
    vision = {"model_type": "clip_vision_model", **_VISION}
    return transformers.LlavaConfig(text_config=text.to_dict(), vision_config=vision, image_token_index=52)


def _mistral3_vision(special: dict[str, Any]) -> PretrainedConfig:
    text = transformers.MistralConfig(**_LLAMA, sliding_window=None, **special)
    vision = {"model_type": "pixtral", **_VISION}
    return transformers.Mistral3Config(text_config=text.to_dict(), vision_config=vision, image_token_index=52)


def _qwen2_5_vl(special: dict[str, Any]) -> PretrainedConfig:
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    text = transformers.Qwen2_5_VLTextConfig(**_LLAMA, **rope, **special)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": D_MODEL}
    images = {"image_token_id": 50, "video_token_id": 51, "vision_start_token_id": 52, "vision_end_token_id": 53}
    return transformers.Qwen2_5_VLConfig(text_config=text.to_dict(), vision_config=vision, **images)


CONFIGS: dict[str, Callable[[dict[str, Any]], PretrainedConfig]] = {
    "llama": _of("LlamaConfig", _LLAMA),
    "qwen2": _of("Qwen2Config", _LLAMA, use_sliding_window=False),
    "gpt2": _of("GPT2Config", _GPT),
    "gpt_neox": _of("GPTNeoXConfig", _NEOX),
    "apertus": _of("ApertusConfig", _LLAMA),
    "arcee": _of("ArceeConfig", _LLAMA),
    "bloom": _of("BloomConfig", hidden_size=D_MODEL, n_layer=N_LAYERS, n_head=4, initializer_range=SPREAD),
    "codegen": _of("CodeGenConfig", _GPT, rotary_dim=4),
    "cohere": _of("CohereConfig", _LLAMA),
    "cohere2": _of("Cohere2Config", _LLAMA, _SLIDING),
    "deepseek_v2": _of("DeepseekV2Config", _DEEPSEEK),
    "deepseek_v3": _of("DeepseekV3Config", _DEEPSEEK),
    "ernie4_5": _of("Ernie4_5Config", _LLAMA),
    "exaone4": _of("Exaone4Config", _LLAMA, _SLIDING),
    "falcon": _of("FalconConfig", _FALCON),
    "falcon_alibi": _of("FalconConfig", _FALCON, alibi=True, multi_query=False),
    "falcon_mamba": _of("FalconMambaConfig", hidden_size=D_MODEL, num_hidden_layers=N_LAYERS, state_size=4),
    "gemma": _of("GemmaConfig", _WIDE),
    "gemma2": _of("Gemma2Config", _WIDE, _SLIDING, query_pre_attn_scalar=16),
    "gemma3": _of("Gemma3TextConfig", _WIDE, _SLIDING, query_pre_attn_scalar=16),
    "gemma3_vision": _gemma3_vision,
    "gemma3n": _of(
        "Gemma3nTextConfig",
        _WIDE,
        _SLIDING,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * N_LAYERS,
    ),
    "gemma4": _of("Gemma4TextConfig", _WIDE, _SLIDING, hidden_size_per_layer_input=8),
    "gemma4_vision": _gemma4_vision,
    "glm": _of("GlmConfig", _LLAMA, head_dim=8),
    "glm4": _of("Glm4Config", _LLAMA, head_dim=8),
    "gpt_bigcode": _of("GPTBigCodeConfig", _GPT),
    "gpt_neo": _of(
        "GPTNeoConfig",
        hidden_size=D_MODEL,
        num_layers=N_LAYERS,
        num_heads=4,
        window_size=WINDOW,
        max_position_embeddings=256,
        attention_types=[[["global", "local", "global"], 1]],
        initializer_range=SPREAD,
    ),
    "gpt_oss": _of("GptOssConfig", _WIDE, _SLIDING, _LOCAL_EXPERTS),
    "gptj": _of("GPTJConfig", _GPT, rotary_dim=4),
    "granite": _of("GraniteConfig", _LLAMA, residual_multiplier=0.5, embedding_multiplier=2.0),
    "granite_moe": _of("GraniteMoeConfig", _LLAMA, _LOCAL_EXPERTS),
    "granite_moe_hybrid": _of("GraniteMoeHybridConfig", _LLAMA, _LOCAL_EXPERTS, _MAMBA),
    "hunyuan": _of("HunYuanDenseV1Config", _LLAMA, head_dim=8),
    "jamba": _of(
        "JambaConfig",
        _LLAMA,
        num_experts=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        use_mamba_kernels=False,
    ),
    "lfm2": _of("Lfm2Config", _LLAMA, layer_types=["conv", "full_attention", "conv"]),
    "llava": _llava,
    "llama4": _of("Llama4TextConfig", _WIDE, _LOCAL_EXPERTS, intermediate_size_mlp=48, attention_chunk_size=WINDOW),
    "mamba": _of("MambaConfig", hidden_size=D_MODEL, num_hidden_layers=N_LAYERS, state_size=4),
    "mamba2": _of(
        "Mamba2Config",
        hidden_size=D_MODEL,
        num_hidden_layers=N_LAYERS,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=1,
    ),
    "minimax_m2": _of("MiniMaxM2Config", _WIDE, _LOCAL_EXPERTS),
    "ministral3": _of("Ministral3Config", _LLAMA),
    "mistral": _of("MistralConfig", _LLAMA, sliding_window=WINDOW),
    "mistral3_vision": _mistral3_vision,
    "mixtral": _of("MixtralConfig", _LLAMA, _LOCAL_EXPERTS),
    "mpt": _of("MptConfig", d_model=D_MODEL, n_layers=N_LAYERS, n_heads=4, max_seq_len=256, initializer_range=SPREAD),
    "nemotron": _of("NemotronConfig", _LLAMA),
    "olmo": _of("OlmoConfig", _LLAMA),
    "olmo2": _of("Olmo2Config", _LLAMA),
    "olmo3": _of("Olmo3Config", _LLAMA, _SLIDING),
    "olmoe": _of("OlmoeConfig", _LLAMA, _EXPERTS),
    "opt": _of("OPTConfig", _OPT, word_embed_proj_dim=D_MODEL),
    "opt_350m": _of("OPTConfig", _OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "phi": _of("PhiConfig", _NEOX, partial_rotary_factor=0.5),
    "phi3": _of("Phi3Config", _LLAMA, sliding_window=WINDOW),
    "phimoe": _of("PhimoeConfig", _LLAMA, _LOCAL_EXPERTS),
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_moe": _of("Qwen2MoeConfig", _LLAMA, _SMALL_EXPERTS, shared_expert_intermediate_size=24),
    "qwen3": _of("Qwen3Config", _WIDE),
    "qwen3_5": _of("Qwen3_5TextConfig", _WIDE, _LINEAR),
    "qwen3_moe": _of("Qwen3MoeConfig", _WIDE, _SMALL_EXPERTS),
    "qwen3_next": _of("Qwen3NextConfig", _WIDE, _SMALL_EXPERTS, _LINEAR, shared_expert_intermediate_size=24),
    "recurrent_gemma": _of(
        "RecurrentGemmaConfig",
        _LLAMA,
        lru_width=D_MODEL,
        attention_window_size=WINDOW,
        block_types=["recurrent", "attention", "recurrent"],
    ),
    "seed_oss": _of("SeedOssConfig", _LLAMA, head_dim=8),
    "smollm3": _of("SmolLM3Config", _LLAMA),
    "stablelm": _of("StableLmConfig", _LLAMA),
    "starcoder2": _of("Starcoder2Config", _LLAMA, sliding_window=WINDOW),
    "xglm": _of(
        "XGLMConfig",
        d_model=D_MODEL,
        ffn_dim=48,
        num_layers=N_LAYERS,
        attention_heads=4,
        max_position_embeddings=256,
        init_std=SPREAD,
    ),
}


def build(kind: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A random model, the same every time, with ``tokenizer``'s vocabulary."""
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    config = CONFIGS[kind](special)
    model: PreTrainedModel = auto_class(config).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases begin as ones and zeros, which would hide mistakes in them
                parameter.add_(SPREAD * torch.randn_like(parameter))
    return model


def long_rope(tokenizer: PreTrainedTokenizerBase, border: int) -> Model:
    """A model whose rotary embeddings are other ones once a row of the batch is longer than ``border``."""
    torch.manual_seed(0)
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    config = transformers.Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        original_max_position_embeddings=border,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors},
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    return Model(transformers.Phi3ForCausalLM(config), ChatTemplate(tokenizer), "phi3")
