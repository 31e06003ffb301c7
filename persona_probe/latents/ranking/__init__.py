"""Which latents? Ranked by change, by attribution, by agreement with a direction."""
