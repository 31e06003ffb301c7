"""Finders, one per file: from two poles to one vector per layer."""
