"""Experiments on Persona World, whose answers are known."""
