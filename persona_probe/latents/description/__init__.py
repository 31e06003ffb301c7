"""What is it? Texts, tokens and labels that a latent goes with."""
