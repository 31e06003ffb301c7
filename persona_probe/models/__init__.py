"""Loading, pairs on one copy of weights, generation, guards, and the residual stream's only hooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
