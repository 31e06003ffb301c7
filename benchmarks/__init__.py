"""Performance as ratios to the bare forward pass and to the usual tools, measured in the same run."""
