"""Real language: hand-written answers to train a real chat model on, and pairs to measure it by."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
