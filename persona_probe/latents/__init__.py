"""SAE latents: which moved from before to after, and did it matter?"""
