"""Persona World: its language, its oracle judge, and its models."""
