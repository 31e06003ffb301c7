"""Weights with an intervention inside."""
