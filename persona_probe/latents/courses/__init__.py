"""When? Latents and behaviour along training, realignment and shares of bad data."""
