"""Dialogues, chat rendering, token spans, and reading them from files."""
