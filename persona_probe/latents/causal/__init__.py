"""Whether latents matter: they are steered one by one and in sets, and compared with matched random latents."""
