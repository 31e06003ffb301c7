"""Training SAEs on our own stream of activations, with SAELens' trainer."""
