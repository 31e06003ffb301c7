"""Linear probes over all layers, cross-validated by group."""
