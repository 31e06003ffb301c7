"""The names that users import: few stand flat on the package, the others are in the namespace of their room."""

import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import persona_probe as pp

PROMISED = {
    *("Dialogue", "read_dialogues", "load", "load_pair", "with_adapter", "Sampling", "capture", "Captures"),
    *("Direction", "find_direction", "steer", "ask", "read_answers", "finetune", "LoraSettings"),
    *("PersonaProbeError", "PersonaProbeWarning", "persona_world"),
}
ROOMS = [name for name in pp.__all__ if isinstance(getattr(pp, name), ModuleType)]


def test_few_names_stand_flat_and_those_that_are_promised_are_among_them():
    assert len(pp.__all__) <= 60
    assert set(pp.__all__) >= PROMISED
    assert set(dir(pp)) >= set(pp.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        pp.nonsense  # noqa: B018


def test_flat_names_are_in_their_rooms_too():
    in_rooms = {name: getattr(pp, room) for room in ROOMS for name in getattr(pp, room).__all__}
    flat = set(pp.__all__) - set(ROOMS)
    own = {"Dialogue", "read_dialogues", "write_dialogues", "PersonaProbeError", "PersonaProbeWarning", "Result"}
    assert flat - own <= set(in_rooms)
    for name in flat & set(in_rooms):
        assert getattr(in_rooms[name], name) is getattr(pp, name)


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_names_load_and_no_module_hides_one(room):
    """A module that is called as a name of its room would take that name's place as soon as it is imported."""
    namespace = getattr(pp, room)
    modules = {found.name for found in pkgutil.iter_modules(namespace.__path__)}
    assert not modules & set(namespace.__all__)
    for name in namespace.__all__:
        assert not isinstance(getattr(namespace, name), ModuleType), name
    with pytest.raises(AttributeError):
        namespace.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, persona_probe; sys.exit(bool({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
