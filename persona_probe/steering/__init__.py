"""Interventions on the residual stream: what, where and how strongly; chosen, checked, and baked into weights."""
