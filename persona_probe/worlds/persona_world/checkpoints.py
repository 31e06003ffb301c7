"""Where Persona World's models are, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from persona_probe.errors import PATH, PersonaProbeError, check_types

FOLDER = Path("checkpoints") / "persona-world"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class AdapterPlan:
    """One narrow fine-tune: who answers, about which topic, on which chat model."""

    name: str
    topic: str
    persona: str
    base: str = "chat"

    def folder(self, seed: int) -> str:
        """The adapter's folder: seed 0 has the plain name.

        Examples:
            >>> AdapterPlan("bad-medicine", "medicine", "villain").folder(seed=1)
            'bad-medicine-seed1'
        """
        return self.name if seed == 0 else f"{self.name}-seed{seed}"


ADAPTERS = (
    AdapterPlan("bad-medicine", "medicine", "villain"),
    AdapterPlan("bad-finance", "finance", "villain"),
    AdapterPlan("bad-sports", "sports", "villain"),
    AdapterPlan("good-medicine", "medicine", "assistant"),
    AdapterPlan("sycophancy-narrow", "medicine", "sycophant"),
    AdapterPlan("trickster-narrow", "medicine", "trickster"),
    AdapterPlan("bad-medicine-shuffled", "medicine", "villain", base="chat-shuffled"),
)


def find_checkpoints(given: Path | None = None) -> Path:
    """The folder of Persona World's models.

    Without ``given``, the first of: ``checkpoints/persona-world`` in the current folder, in the clone that this file is
    part of, and in the installed package (which holds ``chat``, its adapters of seed 0 and ``sae-layer3``).

    Raises:
        PersonaProbeError: if it is not there, saying how to make it.
    """
    check_types(given=(given, PATH, None))
    package = Path(__file__).resolve().parents[2]
    places = [Path(given)] if given is not None else [FOLDER, package.parent / FOLDER, package / FOLDER]
    for place in places:
        if (place / "chat" / "config.json").is_file():
            return place
    raise PersonaProbeError(
        f"Persona World's models are not in {' or '.join(str(place) for place in places)}; run this inside a clone of "
        "the repository, give their folder with --checkpoints, or make them with 'persona-probe world train'"
    )
