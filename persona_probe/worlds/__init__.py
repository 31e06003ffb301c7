"""Embedded worlds with a known answer."""
