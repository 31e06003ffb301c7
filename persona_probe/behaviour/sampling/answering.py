"""What answers questions: a loaded model, or a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.models.sampling import Sampling

SERVED = ("finish_reason", "request_seed", "error")
"""Labels of answers that are more than text, and columns of their tables: why the answer ends (``length``: it was cut),
the seed that was sent with its request, and why there is no answer."""


@runtime_checkable
class Answering(Protocol):
    """Answers questions: `persona_probe.Model`, `persona_probe.Server`, or an object of your own.

    Attributes:
        name: what tables call it.
    """

    name: str

    def generate(
        self, dialogues: Sequence[Dialogue], sampling: Sampling | None = None, *, progress: bool = False
    ) -> list[Dialogue]:
        """The dialogues with ``sampling.n`` answers each, which follow each other.

        A dialogue that could not be answered is returned as it was given. Labels called as in `SERVED` become columns
        of the table of answers.
        """
        ...
