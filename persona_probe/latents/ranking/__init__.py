"""Rankings of latents: by change, by attribution, by agreement with a direction."""
