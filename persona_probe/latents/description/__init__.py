"""What a latent stands for: the texts, tokens and labels for which it is active."""
