"""Connections to other people's tools, each optional."""
