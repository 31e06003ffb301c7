"""Steered generation with different tools: each file makes a function that returns the new tokens, (row, position).

What a user would do once, before the loop, is done when the function is made, and is not timed.
"""
