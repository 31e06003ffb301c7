"""Directions with their cards, how they are found, compared, read and written."""
