"""Writing an intervention into weights, and comparing these with the hooks."""
