"""The same computation by different tools: each file makes a function that returns means, (dialogue, layer, d_model).

What a user would do once, before the loop, is done when the function is made, and is not timed.
"""
