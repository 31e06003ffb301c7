"""The rules of the house: rooms import only rooms above their own, nothing imports in a circle, no name is used twice.

Imports inside functions count, and so do those under ``if TYPE_CHECKING``: they too must be followed to read a file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "persona_probe"
ROOMS = (
    "ground",
    "statistics",
    "linear",
    "dialogue",
    "figures",
    "models",
    "activations",
    "directions",
    "probes",
    "behaviour",
    "finetuning",
    "steering",
    "latents",
    "amplification",
    "mitigations",
    "token_view",
    "worlds",
    "runs",
    "report",
    "study",
    "integrations",
    "app",
    "cli",
    "front door",
)
"""From the ground up: a room may import those before it. The front door is what users import, and nothing else does."""
GROUND = ("errors", "result", "files", "clock")
FRONT_DOOR = ("__init__", "__main__")
SHORTEST = 12
"""Lines of a file that is worth opening."""


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package, by its dotted name."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room_of(file: Path, package: Path) -> str:
    """The room that a file lies in."""
    first = file.relative_to(package).with_suffix("").parts[0]
    return "ground" if first in GROUND else "front door" if first in FRONT_DOOR else first


class _Imports(ast.NodeVisitor):
    """The package's modules that a module imports when it runs, wherever in it the import stands."""

    def __init__(self, name: str, known: dict[str, Path]) -> None:
        self.name, self.known = name, known
        self.package = name.split(".")[0]
        parts = name.split(".")
        self.folder = parts if known[name].stem == "__init__" else parts[:-1]
        self.found: set[str] = set()
        self.visit(ast.parse(known[name].read_text(encoding="utf-8")))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = ".".join(self.folder[: len(self.folder) - node.level + 1]) if node.level else ""
        source = ".".join(part for part in (above, node.module) if part)
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            self._add(inner if inner in self.known else source)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name == "import_module" and node.args:
            given = node.args[0]
            if isinstance(given, ast.JoinedStr) and given.values:
                given = given.values[0]
            if isinstance(given, ast.Constant):
                self._add(str(given.value).rstrip("."))

    def _add(self, name: str) -> None:
        if name.split(".")[0] == self.package and name != self.name:
            self.found.add(name)


def imports(package: Path) -> dict[str, set[str]]:
    """What each module imports of its own package."""
    known = modules(package)
    return {name: _Imports(name, known).found for name in known}


def upward_imports(package: Path) -> list[str]:
    """Imports of a room below one's own, and files that are in no room."""
    known = modules(package)
    wrong = []
    for name, targets in imports(package).items():
        room = room_of(known[name], package)
        if room not in ROOMS:
            wrong.append(f"{name} is in {room!r}, which is not a room: put it into ROOMS")
            continue
        for target in sorted(targets):
            other = room_of(known[target], package) if target in known else target.split(".")[1]
            if other not in ROOMS or ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{name} ({room}) imports {target} ({other})")
    return wrong


def circles(package: Path) -> list[str]:
    """Circles of imports between modules: each names one of its edges, which is then left out to look for more."""
    graph = imports(package)
    found = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            found.append(" -> ".join(circle))
            graph[circle[0]].discard(circle[1])
        else:
            return found


def shared_class_names(package: Path) -> list[str]:
    """Names that more than one class of the package has."""
    where = defaultdict(list)
    for name, file in modules(package).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(name)
    return [f"{name}: {', '.join(files)}" for name, files in sorted(where.items()) if len(files) > 1]


def hollow_files(package: Path) -> list[str]:
    """Files that define nothing or hardly anything; ``__init__`` and ``__main__`` may."""
    return [f"{name}: {why}" for name, file in modules(package).items() for why in _hollow(file)]


def _hollow(file: Path) -> Iterator[str]:
    if file.stem in FRONT_DOOR:
        return
    text = file.read_text(encoding="utf-8")
    if len(text.splitlines()) < SHORTEST:
        yield f"{len(text.splitlines())} lines"
    defining = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    if not any(isinstance(node, defining) for node in ast.parse(text).body):
        yield "defines nothing"


def test_rooms_import_only_rooms_above_their_own():
    wrong = upward_imports(PACKAGE)
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle():
    wrong = circles(PACKAGE)
    assert not wrong, "\n".join(wrong)


def test_no_two_classes_share_a_name():
    wrong = shared_class_names(PACKAGE)
    assert not wrong, "\n".join(wrong)


def test_every_file_is_worth_opening():
    wrong = hollow_files(PACKAGE)
    assert not wrong, "\n".join(wrong)


def build(root: Path, **files: str) -> Path:
    """A small package; ``__`` in a name is a folder."""
    package = root / "house"
    for name, text in {"init": "", **files}.items():
        path = package / ("__init__.py" if name == "init" else f"{name.replace('__', '/')}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_an_import_upwards_is_seen_wherever_it_hides(tmp_path):
    package = build(
        tmp_path,
        linear__lazy="def f():\n    from house.models import model\n",
        linear__named="import importlib\nimportlib.import_module(f'house.report.{1}')\n",
        linear__relative="from ..steering import engine\n",
        linear__face="def f():\n    import house\n",
        linear__fine="from house import errors\nfrom house.statistics.rates import rate\nimport json\n",
        linear__typed="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.models import model\n",
        errors="",
        attic__box="",
        models__model="",
        statistics__rates="",
        steering__engine="",
    )
    assert upward_imports(package) == [
        "house.attic.box is in 'attic', which is not a room: put it into ROOMS",
        "house.linear.face (linear) imports house (front door)",
        "house.linear.lazy (linear) imports house.models.model (models)",
        "house.linear.named (linear) imports house.report (report)",
        "house.linear.relative (linear) imports house.steering.engine (steering)",
        "house.linear.typed (linear) imports house.models.model (models)",
    ]


def test_circles_are_found_each_once(tmp_path):
    package = build(
        tmp_path,
        models__a="from house.models.b import x\n",
        models__b="def f():\n    from house.models import c\n",
        models__c="from house.models.a import y\nfrom house.models.d import z\n",
        models__d="from house.models.e import z\n",
        models__e="from house.models.d import z\n",
    )
    assert [set(circle.split(" -> ")) for circle in circles(package)] == [
        {"house.models.a", "house.models.b", "house.models.c"},
        {"house.models.d", "house.models.e"},
    ]


def test_shared_names_and_hollow_files_are_found(tmp_path):
    long = "\n" * SHORTEST
    package = build(
        tmp_path,
        probes__one=f"class Setting: ...{long}",
        probes__two=f"def f():\n    class Setting: ...{long}",
        probes__short="X = 1\n",
        probes__empty=f"'''Says only this.'''\nimport json{long}",
    )
    assert shared_class_names(package) == ["Setting: house.probes.one, house.probes.two"]
    assert hollow_files(package) == ["house.probes.empty: defines nothing", "house.probes.short: 1 lines"]
