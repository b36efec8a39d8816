"""Finding experiments: by the name of one that ships with the package, by the path of a file, or by
a run that holds one.
"""

import ast
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.runs.experiment import Experiment


def shipped() -> Mapping[str, Path]:
    """The files of the experiments that come with the package, by name: inside a wheel, or beside a
    checkout's package.
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
    """The first paragraph of a file's docstring, as one line, without running the file."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def find(name: str) -> Experiment:
    """The experiment that ``name`` means: a shipped one's name, a Python file, a run directory, or
    a run's JSON file.

    Raises:
        ConfigError: where there is none, or the file defines no ``experiment``.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(
                f"there is no file {name}; shipped experiments are {', '.join(shipped())}"
            )
        return _from_file(path)
    record = path / "run.json" if path.is_dir() else path
    if record.is_file() and record.suffix == ".json":
        return _from_record(record)
    if name in shipped():
        return _from_file(shipped()[name])
    raise ConfigError(
        f"there is no experiment '{name}'; {nearest(name, shipped())}. A path of a .py file or a"
        " run is one too"
    )


def _from_file(path: Path) -> Experiment:
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{path} defines no `experiment`, which must be an mi_jax.Experiment")
    return experiment


def _from_record(file: Path) -> Experiment:
    try:
        record = json.loads(file.read_text())["experiment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} holds no experiment ({error})") from error
    return Experiment.from_json(record)
