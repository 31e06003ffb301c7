"""The modules with the cases of the coverage table, in the order of the page. A new one needs its name here only."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from benchmarks.coverage.case import Case

SECTIONS = ("rates", "changes", "means", "shifts", "amplification", "latents", "separation", "agreement")


def module(section: str) -> ModuleType:
    """The module of a section; its docstring introduces the section's table."""
    return import_module(f"benchmarks.coverage.{section}")


def cases(section: str) -> dict[str, Case]:
    """The cases of a section by their key.

    Raises:
        RuntimeError: if two cases have the same key, so that one would hide the other.
    """
    listed: list[Case] = module(section).CASES
    by_key = {case.key: case for case in listed}
    if len(by_key) < len(listed):
        keys = [case.key for case in listed]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RuntimeError(f"section {section!r} has two cases {twice!r}; give them different settings")
    return by_key
