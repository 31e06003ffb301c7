"""Judges: who scores answers, and how."""
