"""Interventions and the context that applies them."""
