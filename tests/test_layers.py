"""Who may import whom: the table of ARCHITECTURE.md, held by walking the imports."""

import ast
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[1] / "mi_jax"

_BASICS = {"arrays", "calls", "concepts", "contracts", "errors", "fields", "lapack", "precision", "pytrees", "records", "streams"}
_MODEL_CONTRACT = {"models.taps", "models.views"}
_READINGS = {"measures", "decompositions", "circuits", "landscape"}

_MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "arrays": set(),
    "calls": {"errors", "records"},
    "precision": set(),
    "lapack": set(),
    "pytrees": {"arrays", "errors"},
    "streams": {"arrays"},
    "records": {"errors"},
    "concepts": {"errors"},
    "fields": set(),
    "contracts": {"arrays", "concepts", "errors", "fields"},
    "tasks": _BASICS,
    "models": _BASICS,
    "interventions": _BASICS | {"models.taps", "measures.fourier"},
    "training": _BASICS | {"interventions", "tasks.sampling"},
    "measures": _BASICS | _MODEL_CONTRACT,
    **{folder: _BASICS | _MODEL_CONTRACT | {"measures"} for folder in ("decompositions", "circuits", "landscape")},
    "readings": {"calls", "contracts"} | _READINGS,
    "dynamics": set(),
    "plots": {"dynamics"},
    "report": {"dynamics"},
    "joining": {"errors"},
    "results": _BASICS | {"training.trajectory"},
    "measuring": _BASICS | {"joining", "readings", "results", "training.trajectory"},
    "nulls": _BASICS | {"joining", "measuring", "results", "training.trajectory"},
    "settings": _BASICS | {"interventions", "measuring", "models", "tasks", "training"},
    "weights": _BASICS,
    "run": _BASICS | {"interventions", "landscape", "measuring", "nulls", "settings", "training"},
    "experiment": _BASICS | {"interventions", "measuring", "run", "settings", "training", "weights"},
    "forks": _BASICS | {"experiment", "interventions", "run", "settings", "training"},
    "comparing": _BASICS | {"measuring", "plots", "run"},
    "verbs": _BASICS | {"comparing", "console", "experiment", "forks", "interventions", "plots", "results"},
    "planted": _BASICS | {"models", "tasks", "training", "measuring", "experiment"},
    "across": _BASICS | {"decompositions", "dynamics", "measures", "measuring", "run"},
    "findings": {"dynamics", "joining", "nulls"},
    "plans": {"dynamics", "nulls", "plots"},
    "figures": {"dynamics", "joining", "nulls", "plans", "plots", "report"},
    "library": {"errors", "experiment"},
    "overrides": {"errors", "experiment", "models", "planted", "tasks", "training"},
    "studying": _BASICS
    | {"across", "experiment", "measures", "measuring", "nulls", "dynamics", "figures", "findings", "report", "training"},
    "sweeping": _BASICS | {"dynamics", "experiment", "library", "measuring", "plots", "results", "training"},
    "console": _BASICS | {"experiment", "measuring", "measures", "training"},
    "listing": {"library", "measures", "models", "readings", "records", "tasks"},
    "printing": set(),
    "interop": _BASICS | {"experiment", "models", "training"},
    "cli": {
        "calls",
        "forks",
        "verbs",
        "errors",
        "findings",
        "library",
        "overrides",
        "console",
        "joining",
        "listing",
        "printing",
        "results",
        "experiment",
        "measuring",
        "records",
        "studying",
        "sweeping",
        "training",
    },
}
"""By room, what it may import of the package besides itself; a dotted name allows that module alone."""


def _modules() -> list[Path]:
    return sorted(file for file in _PACKAGE.rglob("*.py") if "experiments" not in file.parts[-2:-1])


def _room(file: Path) -> str:
    parts = file.relative_to(_PACKAGE).with_suffix("").parts
    return parts[0]


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "mi_jax"}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(_PACKAGE)))
def test_a_module_imports_only_what_its_layer_may(file: Path) -> None:
    room = _room(file)
    if room == "__init__":
        return
    allowed = _MAY_IMPORT[room]
    for name in _imported(file):
        if name == "mi_jax" or not name.startswith("mi_jax."):
            continue
        inner = name.removeprefix("mi_jax.")
        ok = inner.split(".")[0] in {room, *allowed} or any(inner == one or inner.startswith(f"{one}.") for one in allowed)
        assert ok, f"{file.name} imports {name}; {room} may import {sorted(allowed)}"


def test_only_segments_imports_orbax_and_only_the_command_line_tyro() -> None:
    importers = {
        root: {str(f.relative_to(_PACKAGE)) for f in _modules() if any(n.split(".")[0] == root for n in _imported(f))}
        for root in ("orbax", "tyro", "rich", "jinja2", "flax")
    }
    assert importers["orbax"] == {"training/segments.py"}
    assert importers["tyro"] == {"overrides.py"}
    assert importers["rich"] == {"console.py", "printing.py"}
    assert importers["jinja2"] == {"report/page.py"}
    assert importers["flax"] == set()


def test_dynamics_knows_no_jax() -> None:
    for file in (_PACKAGE / "dynamics").glob("*.py"):
        roots = {name.split(".")[0] for name in _imported(file)}
        assert not roots & {"jax", "optax", "orbax"}, file.name


def test_the_table_names_every_room() -> None:
    rooms = {_room(file) for file in _modules()} - {"__init__"}
    assert rooms == set(_MAY_IMPORT)
