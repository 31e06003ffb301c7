"""Directions that others have published: one file a format, all read by `persona_probe.directions.published.read`."""
