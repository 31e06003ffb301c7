"""A whole study from one YAML."""
