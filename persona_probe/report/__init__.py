"""Figures, the HTML report and the terminal summary of a finished study; none of it needs torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
