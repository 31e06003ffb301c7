"""Measure the organisms of the real-language experiments."""
