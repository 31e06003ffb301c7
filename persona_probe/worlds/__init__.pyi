from . import persona_world as persona_world
from . import real_language as real_language
