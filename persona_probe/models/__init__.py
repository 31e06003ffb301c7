"""Loading models, pairs on one copy of the weights, generation, checks, and the only hooks on the residual stream."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
