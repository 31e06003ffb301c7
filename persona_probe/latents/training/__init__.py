"""Training SAEs on a stream of captured activations, with SAELens' trainer."""
