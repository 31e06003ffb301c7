"""Kinds of intervention, one a file."""
