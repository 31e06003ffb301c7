"""How answers are sampled: the settings that every function which asks a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from persona_probe.errors import PersonaProbeError


@dataclass(frozen=True)
class Sampling:
    """How a model's answers are sampled.

    Temperature and top-p are used as given; only the stop tokens are taken from the model's own generation config. The
    same seed, batch size and dialogues give the same answers.

    Attributes:
        max_new_tokens: length of the longest answer, in tokens.
        temperature: sampling temperature; 0 decodes greedily.
        top_p: probability mass of nucleus sampling; 1 samples from all tokens.
        batch_size: dialogues per forward pass. It also decides which random number goes to which answer.
        seed: seed of the sampling, and of everything else that the function which takes it draws at random.
        n: number of answers to each dialogue.

    Raises:
        PersonaProbeError: if a number is out of range.

    >>> Sampling(max_new_tokens=40, temperature=0)
    Sampling(max_new_tokens=40, temperature=0, top_p=1.0, batch_size=128, seed=0, n=1)
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 128
    seed: int = 0
    n: int = 1

    def __post_init__(self) -> None:
        """Raise if a number is out of range."""
        counts = (self.max_new_tokens, self.batch_size, self.n)
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or min(counts) < 1:
            raise PersonaProbeError(
                f"sampling: temperature={self.temperature}, top_p={self.top_p}, max_new_tokens={self.max_new_tokens}, "
                f"n={self.n}, batch_size={self.batch_size}; temperature must be >= 0, top_p in (0, 1], the others >= 1"
            )
