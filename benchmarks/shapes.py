"""The models that are measured: Qwen2 architectures with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import Qwen2Config


@dataclass(frozen=True)
class Shape:
    """One model, and how much is run through it.

    Attributes:
        on_disk: whether it is written to a folder and loaded from there, or built where it runs (if it has 15 GB).
        dialogues: the number of dialogues that are captured.
        share: the share of them, drawn once, that the slower peers read.
        rounds: how often every variant is timed.
        batch: how many answers are generated together.
        more_batches: other batch sizes, at which plain and steered generation are compared.
        new_tokens: the number of tokens of each answer.
        swept: the number of questions for each strength of a sweep.
    """

    name: str
    layers: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    vocabulary: int
    dtype: str = "float32"
    on_disk: bool = True
    dialogues: int = 512
    share: float = 0.25
    rounds: int = 3
    batch: int = 32
    more_batches: tuple[int, ...] = ()
    new_tokens: int = 32
    swept: int = 4

    def config(self) -> Qwen2Config:
        return Qwen2Config(
            hidden_size=self.d_model,
            intermediate_size=self.d_mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=1024,
            use_sliding_window=False,
            dtype=self.dtype,
        )

    def words(self) -> str:
        return (
            f"Qwen2 architecture, random weights: {self.layers} layers, d_model {self.d_model}, "
            f"vocabulary {self.vocabulary:,}, {self.dtype}"
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "tiny",
            2,
            64,
            176,
            4,
            2,
            32_000,
            dialogues=24,
            share=0.5,
            rounds=1,
            batch=4,
            more_batches=(1,),
            new_tokens=8,
            swept=2,
        ),
        Shape("small", 12, 512, 1408, 8, 2, 32_000),
        Shape(
            "qwen2.5-7b",
            28,
            3584,
            18_944,
            28,
            4,
            152_064,
            "bfloat16",
            on_disk=False,
            share=1.0,
            rounds=5,
            more_batches=(1, 128),
            new_tokens=64,
            swept=16,
        ),
        Shape(
            "qwen2.5-7b-brief",
            28,
            3584,
            18_944,
            28,
            4,
            152_064,
            "bfloat16",
            on_disk=False,
            share=0.125,
            rounds=2,
            more_batches=(1, 128),
            new_tokens=32,
            swept=8,
        ),
    )
}
DEFAULT = {"cpu": "small", "cuda": "qwen2.5-7b"}
