"""The same figures by other means: each file makes a function that returns response means, (dialogue, layer, d_model).

Whatever a user would do once, before the loop, is done when the function is made and is not timed.
"""
