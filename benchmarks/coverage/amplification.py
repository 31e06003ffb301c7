"""Amplification."""

from benchmarks.coverage.case import Case

CASES: list[Case] = []
