from . import persona_world as persona_world
