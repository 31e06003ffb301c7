"""Did it matter? Latents steered one by one and in sets, beside matched random ones."""
