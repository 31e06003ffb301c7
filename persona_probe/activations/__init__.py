"""Capture: read the residual stream, reduced inside the hook."""
