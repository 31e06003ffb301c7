"""The parts of a run in order of worth, with the time that each needs on an H100."""

from __future__ import annotations

from dataclasses import dataclass


class NotHere(Exception):  # noqa: N818  (nothing went wrong)
    """What a part measures is not on this machine."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: its name in the record.
        seconds: an upper estimate of its time; with less time left it is skipped.
        module: the module whose function ``measure(setting)`` is called, or None: the tests that need a GPU.
    """

    name: str
    seconds: float
    module: str | None


PARTS = (
    Part("smoke", 60, "benchmarks.gpu.smoke"),
    Part("tests", 150, None),
    Part("capture", 75, "benchmarks.sections.capture"),
    Part("steer", 90, "benchmarks.sections.steer"),
    Part("judge", 45, "benchmarks.sections.judge"),
    Part("study", 150, "benchmarks.gpu.study"),
    Part("probes", 75, "benchmarks.sections.probes"),
    Part("sweep", 50, "benchmarks.sections.sweep"),
    Part("real", 45, "benchmarks.gpu.real"),
)
"""The estimates are from the arithmetic of a 7 B model and from times on a CPU; no card has been at hand yet."""


def left_out(part: Part, time_left: float) -> str | None:
    """Why a part is skipped, or None."""
    if time_left >= part.seconds:
        return None
    return f"{max(time_left, 0):.0f} s are left, and it may need {part.seconds:.0f} s"
