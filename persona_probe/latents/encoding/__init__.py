"""Latent activations of many tokens, as they stream by."""
