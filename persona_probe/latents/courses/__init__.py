"""When latents and behaviour change: along training, realignment and shares of bad data."""
