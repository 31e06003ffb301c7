"""Performance, measured against the bare forward pass and the usual tools in the same run, as ratios."""
