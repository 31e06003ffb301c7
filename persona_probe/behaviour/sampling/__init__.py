"""Asking for answers where they are not sampled by this package's own models."""
