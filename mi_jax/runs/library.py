"""Finding experiments: by the name of one that comes with the package, by the path of a Python
file, or by a run.
"""

import ast
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.runs.experiment import Experiment


def shipped() -> Mapping[str, Path]:
    """Find the files of the experiments that come with the package, by name.

    They lie inside an installed package, or beside the package in a checkout.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "experiments", package.parent / "experiments"):
        if folder.is_dir():
            return {
                file.stem: file
                for file in sorted(folder.glob("*.py"))
                if not file.stem.startswith("_")
            }
    return {}


def summary(file: Path) -> str:
    """Read the first paragraph of a file's docstring, as one line, without running the file."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def find(name: str) -> Experiment:
    """Find an experiment.

    Args:
        name: the name of an experiment that comes with the package, the path of a Python file that
            defines ``experiment``, the directory of a run, or the path of its ``run.json``.

    Raises:
        ConfigError: if there is none, or the file defines no ``experiment``.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not os.path.isfile(path):
            raise ConfigError(
                f"There is no file {name}. Experiments that come with the package are"
                f" {', '.join(shipped())}."
            )
        return _from_file(path)
    # Not ``path.is_file``, which fails for a path that is too long for the system.
    record = path / "run.json" if os.path.isdir(path) else path
    if os.path.isfile(record) and record.suffix == ".json":
        return _from_record(record)
    if name in shipped():
        return _from_file(shipped()[name])
    raise ConfigError(
        f"There is no experiment '{name}'; {nearest(name, shipped())}. Or give the path of a .py"
        " file or of a run."
    )


def _from_file(path: Path) -> Experiment:
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its own name, so that classes which the file defines are found when a run of them is
    # opened; a module of that name which is loaded already is left alone.
    sys.modules.setdefault(path.stem, module)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"{path} defines no `experiment`. Assign an mi_jax.Experiment to that name."
        )
    return experiment


def _from_record(file: Path) -> Experiment:
    try:
        record = json.loads(file.read_text())
        settings = dict(record["experiment"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file} holds no experiment ({error}). Give the directory of a run."
        ) from error
    recorded = record.get("modules")
    hashes = recorded if isinstance(recorded, dict) else None
    return Experiment.from_json(settings, recorded=hashes)
