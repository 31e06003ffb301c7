"""Strengths: those that meet a budget, and the effect of each compared with nulls."""
