"""persona-probe: find, track and steer the personas behind emergent misalignment.

    import persona_probe as pp

The names used most stand flat on the package; all others are in the namespace of their room (`pp.directions`,
`pp.latents`, `pp.persona_world`, ...). Names are loaded on first use, so importing the package costs nothing, and
opening finished runs needs no torch.
"""

import os
import sys
from importlib.metadata import version

import lazy_loader

# Torch's threads spin while they wait for each other. If another process occupies a core, all of them wait for the
# thread that is not running, and a training step takes far longer. Threads that sleep leave the core to it. OpenMP
# reads this once, when torch is imported, so that later it would change nothing here.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("persona-probe")
