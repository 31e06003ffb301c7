"""How answers are sampled: the settings that every function which asks a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types

GenerationSettings = Literal["neutral", "model"]


@dataclass(frozen=True)
class Sampling:
    """How a model's answers are sampled.

    Temperature and top-p are used as given, and every other setting is neutral: only the stop tokens are taken from the
    model's own generation config (which may have a repetition penalty). The same seed, batch size and dialogues give
    the same answers.

    Attributes:
        max_new_tokens: length of the longest answer, in tokens.
        temperature: sampling temperature; 0 decodes greedily.
        top_p: probability mass of nucleus sampling; 1 samples from all tokens.
        batch_size: dialogues per forward pass. It also decides which random number goes to which answer.
        seed: seed of the sampling, and of everything else that the function which takes it draws at random.
        n: number of answers to each dialogue.
        generation_config: ``neutral``, or ``model`` to sample as the model's own generation config says, temperature
            and top-p included.

    Raises:
        PersonaProbeError: if a number is out of range, or a temperature or top-p is given with the model's own.

    >>> Sampling(max_new_tokens=40, temperature=0)
    Sampling(max_new_tokens=40, temperature=0, top_p=1.0, batch_size=128, seed=0, n=1, generation_config='neutral')
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 128
    seed: int = 0
    n: int = 1
    generation_config: GenerationSettings = "neutral"

    def __post_init__(self) -> None:
        """Raise if a number is out of range."""
        check_types(
            max_new_tokens=(self.max_new_tokens, WHOLE),
            temperature=(self.temperature, NUMBER),
            top_p=(self.top_p, NUMBER),
            batch_size=(self.batch_size, WHOLE),
            seed=(self.seed, WHOLE),
            n=(self.n, WHOLE),
        )
        for name in ("max_new_tokens", "batch_size", "seed", "n", "temperature", "top_p"):
            if hasattr(value := getattr(self, name), "item"):  # Hugging Face does not take NumPy's
                object.__setattr__(self, name, value.item())
        if not -(2**63) <= self.seed < 2**64:
            raise PersonaProbeError(f"sampling: seed is {self.seed}; it must fit into 64 bits")
        counts = (self.max_new_tokens, self.batch_size, self.n)
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or min(counts) < 1:
            raise PersonaProbeError(
                f"sampling: temperature={self.temperature}, top_p={self.top_p}, max_new_tokens={self.max_new_tokens}, "
                f"n={self.n}, batch_size={self.batch_size}; temperature must be >= 0, top_p in (0, 1], the others >= 1"
            )
        if self.generation_config not in get_args(GenerationSettings):
            raise PersonaProbeError(
                f"sampling: generation_config is {self.generation_config!r}; give 'neutral', or 'model' for the "
                "model's own"
            )
        if self.generation_config == "model" and (self.temperature, self.top_p) != (1, 1):
            raise PersonaProbeError(
                f"sampling: temperature={self.temperature} and top_p={self.top_p} were given with "
                "generation_config='model', which uses the model's own; leave them out, or generation_config="
            )
