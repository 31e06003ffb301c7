"""Searching interventions: settings are tried on development questions, the best reported on others, with nulls."""
