"""Loading, pairs on one copy of weights, generation, guards, and the residual stream's only hooks."""
