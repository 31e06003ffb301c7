"""Figures as pure functions of tables: template, text, axes, and one figure in each file."""
