"""Commented study files to start from."""
