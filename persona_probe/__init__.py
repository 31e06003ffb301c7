"""persona-probe: find, track and steer the personas behind emergent misalignment.

    import persona_probe as pp

The names used most stand flat on the package; all others are in the namespace of their room (`pp.directions`,
`pp.latents`, `pp.persona_world`, ...). Names are loaded on first use, so importing the package costs nothing, and
opening finished runs needs no torch.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("persona-probe")
