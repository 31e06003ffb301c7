"""Interventions on the residual stream: their kinds, strengths, search, and baking into weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
