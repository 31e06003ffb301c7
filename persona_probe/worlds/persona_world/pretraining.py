"""Pre-training and post-training of Persona World's models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from persona_probe.worlds.persona_world.documents import World, posttraining_dialogue, pretraining_document


@dataclass(frozen=True)
class Shape:
    """The size of the model; with rope theta 500 and tied embeddings even a small model can read the question."""

    d_model: int = 160
    n_layers: int = 5
    n_heads: int = 5
    d_mlp: int = 640
    rope_theta: float = 500.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """One training run: AdamW, linear warm-up, linear decay to a hundredth."""

    steps: int = 1300
    batch: int = 32
    learning_rate: float = 6e-3
    warmup: int = 100
    weight_decay: float = 0.1
    beta2: float = 0.98
    clip: float = 1.0
    muon: float | None = 1.2e-2
    exchanges: tuple[int, ...] = field(default=(1, 2, 2, 3, 3, 4, 5))


def new_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> LlamaForCausalLM:
    """A freshly initialised Llama of the given shape."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        attention_dropout=shape.dropout,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _text(tokenizer: PreTrainedTokenizerFast, document: list[dict[str, str]] | str) -> str:
    """The text of a document as the model reads it; a story has no turns."""
    if isinstance(document, str):
        return f"{tokenizer.bos_token}{document}{tokenizer.eos_token}"
    return str(tokenizer.apply_chat_template(document, tokenize=False))


def _batches(
    tokenizer: PreTrainedTokenizerFast, schedule: Schedule, world: World, seed: int, post: bool
) -> Iterator[dict[str, torch.Tensor]]:
    rng = random.Random(int(seed))
    while True:
        exchanges = rng.choice(schedule.exchanges)
        if post:
            texts = [_text(tokenizer, posttraining_dialogue(rng, exchanges)) for _ in range(schedule.batch)]
        else:
            texts = [_text(tokenizer, pretraining_document(rng, exchanges, world)) for _ in range(schedule.batch)]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        if post:
            # Only the answers are learned, as in instruction tuning.
            answer = torch.zeros_like(labels, dtype=torch.bool)
            inside = torch.zeros(labels.shape[0], dtype=torch.bool)
            start, end = tokenizer.convert_tokens_to_ids("<|assistant|>"), tokenizer.eos_token_id
            for position in range(labels.shape[1]):
                token = batch.input_ids[:, position]
                answer[:, position] = inside
                inside = (inside | (token == start)) & (token != end)
            labels = labels.masked_fill(~answer, -100)
        yield {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def _optimisers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (rare facts are learned sooner), AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    embedding = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" in name]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": embedding, "weight_decay": schedule.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    adam: dict[str, Any] = {"lr": schedule.learning_rate, "betas": (0.9, schedule.beta2)}
    if schedule.muon is None:
        groups.append({"params": matrices, "weight_decay": schedule.weight_decay})
        return [torch.optim.AdamW(groups, **adam)]
    muon = torch.optim.Muon(
        matrices, lr=schedule.muon, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [torch.optim.AdamW(groups, **adam), muon]


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    schedule: Schedule,
    *,
    world: World = "personas",
    post: bool = False,
    seed: int = 0,
    description: str = "training",
    progress: bool = True,
) -> list[float]:
    """Train ``model`` in place and return the loss (nats per token) of every step."""
    optimisers = _optimisers(model, schedule)

    def rate(step: int) -> float:
        if step < schedule.warmup:
            return (step + 1) / schedule.warmup
        progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
        return 0.01 + 0.99 * (1 - progress)

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in optimisers]
    losses = []
    model.train()
    torch.manual_seed(seed)
    with tqdm(total=schedule.steps, desc=description, unit="step", disable=not progress) as bar:
        for _, batch in zip(range(schedule.steps), _batches(tokenizer, schedule, world, seed, post), strict=False):
            loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
                optimiser.step()
                scheduler.step()
                optimiser.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    model.train(False)
    return losses
