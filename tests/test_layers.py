"""Which room may import which: one table, held by walking the imports of every module."""

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "mi_jax"

_CORE = ("basics", "contracts")
_READINGS = ("measures", "decompositions", "circuits", "landscape")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "basics": (),
    "contracts": ("basics",),
    "tasks": _CORE,
    "models": _CORE,
    "interventions": (*_CORE, "models.taps"),
    "training": (*_CORE, "interventions"),
    "measures": (*_CORE, "models.taps"),
    "decompositions": (*_CORE, "measures"),
    "circuits": (*_CORE, "measures"),
    "landscape": (*_CORE, "measures"),
    "measuring": (*_CORE, *_READINGS, "training.trajectory"),
    "dynamics": ("basics.moved",),
    "plots": ("dynamics",),
    "runs": (
        *_CORE,
        *("tasks", "models", "interventions", "training"),
        *(*_READINGS, "measuring", "dynamics", "plots"),
    ),
    "planted": (*_CORE, "tasks", "models", "training", "measuring", "runs"),
    "report": (*_CORE, "training", "measures", "measuring", "dynamics", "plots", "runs"),
    "interop": _CORE,
    "cli": (
        *_CORE,
        *("tasks", "models", "interventions", "training", "measures"),
        *("measuring", "dynamics", "plots", "runs", "planted", "report"),
    ),
}
"""By room, which others it may import; a dotted name allows that module alone. Arrows point up the
table, so that no circle between rooms can arise."""


def ordered(rooms: Iterable[str]) -> list[str]:
    """Rooms in the table's order."""
    order = list(MAY_IMPORT)
    return sorted(rooms, key=lambda room: order.index(room.split(".")[0]))


def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without the experiments of a wheel."""
    files = (file for file in _PACKAGE.rglob("*.py") if file.parent.name != "experiments")
    return {
        ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted(files)
    }


_MODULES = _modules()


def _imported(name: str) -> set[str]:
    """The modules that a module imports anywhere in it: for types, inside functions, relative."""
    file, found = _MODULES[name], set[str]()
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            named = {f"{base}.{alias.name}" for alias in node.names}
            found |= {one if one in _MODULES else base for one in named}
    return found


def _room(name: str) -> str:
    return name.split(".")[1]


def test_arrows_point_up_the_table() -> None:
    order = list(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        for other in allowed:
            assert order.index(other.split(".")[0]) < order.index(room), f"{room} imports {other}"


@pytest.mark.parametrize("name", [name for name in _MODULES if name != "mi_jax"])
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    allowed = (_room(name), *MAY_IMPORT[_room(name)])
    for imported in _imported(name):
        if imported == "mi_jax":
            raise AssertionError(f"{name} imports the package that is made of it")
        if imported.startswith("mi_jax."):
            inner = imported.removeprefix("mi_jax.")
            ok = any(inner == one or inner.startswith(f"{one}.") for one in allowed)
            assert ok, f"{name} imports {imported}; {_room(name)} may import {allowed}"


def test_no_module_is_in_a_circle() -> None:
    imports = {
        name: _imported(name) & set(_MODULES) - {name} for name in _MODULES if name != "mi_jax"
    }
    state: dict[str, str] = {}

    def walk(name: str, path: tuple[str, ...]) -> None:
        state[name] = "open"
        for other in sorted(imports.get(name, ())):
            assert state.get(other) != "open", f"a circle: {' -> '.join((*path, name, other))}"
            if other not in state:
                walk(other, (*path, name))
        state[name] = "closed"

    for name in imports:
        if name not in state:
            walk(name, ())


def test_each_heavy_library_has_one_place() -> None:
    importers = {
        root: {
            name.removeprefix("mi_jax.")
            for name in _MODULES
            if any(one.split(".")[0] == root for one in _imported(name))
        }
        for root in ("orbax", "tyro", "rich", "jinja2", "flax", "equinox")
    }
    assert importers["orbax"] == {"training.segments"}
    assert importers["tyro"] == {"cli.overrides"}
    assert importers["rich"] == {"cli.progress", "cli.printing"}
    assert importers["jinja2"] == {"report.page"}
    assert importers["flax"] == {"models.modules.linen", "models.modules.nnx"}
    assert importers["equinox"] == {"models.modules.equinox"}


def test_dynamics_knows_no_jax() -> None:
    for name in _MODULES:
        if name.startswith("mi_jax.dynamics"):
            roots = {one.split(".")[0] for one in _imported(name)}
            assert not roots & {"jax", "optax", "orbax"}, name


def test_the_table_names_every_room() -> None:
    assert {_room(name) for name in _MODULES if name != "mi_jax"} == set(MAY_IMPORT)


def test_packages_that_must_start_quickly_import_nothing() -> None:
    for package in ("basics", "cli", "measuring", "runs"):
        assert _imported(f"mi_jax.{package}") == set()


def test_the_architecture_has_this_table() -> None:
    spec = importlib.util.spec_from_file_location("make_layers", _ROOT / "docs" / "make_layers.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = (_ROOT / "ARCHITECTURE.md").read_text()
    assert made.page() == text, "run python docs/make_layers.py"
