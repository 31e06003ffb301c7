"""Intervals, effect sizes and nulls: what every number is reported with. Knows no model."""
