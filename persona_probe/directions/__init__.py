"""One file a finder, and the direction with its card."""
