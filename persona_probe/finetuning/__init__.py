"""Narrow fine-tuning and realignment."""
