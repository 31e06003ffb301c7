"""Tokens coloured by a projection, a probe or a latent."""
