"""Performance, measured against the bare forward pass in the same run, as ratios."""
