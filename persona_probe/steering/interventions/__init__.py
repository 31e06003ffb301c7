"""Kinds of intervention, one per file."""
