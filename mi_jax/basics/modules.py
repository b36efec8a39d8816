"""Modules of the user's own classes: which of them a stored file may name, and how they are
imported.

A run that somebody else stored names classes as ``module:Class``. Such a name never imports a
module of the user by itself: the module must be imported already, or be allowed by name.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mi_jax.basics.errors import ConfigError, NotAllowedError
from mi_jax.basics.moved import MOVED

_ROOMS = ("contracts", "interventions", "models", "planted", "tasks", "training")
"""Rooms of the package that define classes which an experiment may hold."""


def named_modules(record: Any) -> list[str]:
    """Modules, other than those of mi_jax, whose classes a JSON value names, each once.

    Example:
        >>> named_modules({"task": {"type": "mine:Sum"}, "loss": {"type": "cross_entropy"}})
        ['mine']
    """
    modules = [name.partition(":")[0] for name in _types(record)]
    return [name for name in dict.fromkeys(modules) if not _is_ours(name)]


def find_class(name: str) -> Any:
    """The object that ``module:Class`` names in this process. No module of the user is imported.

    Args:
        name: the module and the qualified name of the class.

    Raises:
        NotAllowedError: if the module is the user's and is not imported.
        ConfigError: if the module does not define the name.
    """
    module_name, _, qualname = name.partition(":")
    module = _ours(module_name) if _is_ours(module_name) else _imported(module_name)
    if module is None:
        raise not_allowed([module_name])
    value: Any = module
    for part in qualname.split("."):
        # ``vars`` in place of ``getattr``: a module or a class may run code when an attribute is
        # asked for.
        if not isinstance(value, (ModuleType, type)) or part not in vars(value):
            place = getattr(module, "__file__", None) or "a module without a file"
            raise ConfigError(
                f"The class {name} cannot be found: {module_name} ({place}) does not define"
                f" {qualname}. Restore the class, or the version of the file that the run was"
                " trained with."
            )
        value = vars(value)[part]
    return value


def not_imported(record: Any) -> list[str]:
    """Modules that a JSON value names and this process has not imported."""
    return [name for name in named_modules(record) if _imported(name) is None]


def allow(names: Sequence[str], beside: Sequence[Path] = ()) -> None:
    """Import modules that the user allows by name.

    A module is looked for in the current folder, then in the other folders given, then on the
    Python path; nothing inside the directory of a run is ever imported. The folder is put at the
    end of the Python path, so that the module finds its neighbours.

    Args:
        names: dotted names of modules.
        beside: folders to search after the current one.

    Raises:
        ConfigError: if there is no such module, it lies in the directory of a run, or importing it
            fails.
    """
    for name in names:
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"'{name}' is not the name of a module. Give it without folder and without .py,"
                " such as mine or package.mine."
            )
        if _imported(name) is None:
            _import_from(name, _folders(beside))


def sources(record: Any) -> dict[str, str]:
    """SHA-256 of the source file of each of the user's modules that a JSON value names.

    Modules without a readable file, such as a notebook's, are left out.
    """
    hashes: dict[str, str] = {}
    for name in named_modules(record):
        file = getattr(_imported(name), "__file__", None)
        text = None if file is None else _sha256(Path(file))
        if text is not None:
            hashes[name] = text
    return hashes


def places(record: Any) -> tuple[tuple[str, str], ...]:
    """Where another process finds the user's modules that a JSON value names.

    Returns:
        Pairs of a module's name and the folder to search for it, for ``import_placed``.
    """
    pairs: list[tuple[str, str]] = []
    for name in named_modules(record):
        top = sys.modules.get(name.partition(".")[0])
        file = getattr(top, "__file__", None)
        if file is not None:
            folder = Path(file).resolve().parent
            pairs.append((name, str(folder.parent if hasattr(top, "__path__") else folder)))
    return tuple(pairs)


def import_placed(pairs: Sequence[tuple[str, str]]) -> None:
    """Import modules where another process had them (see ``places``).

    Args:
        pairs: the name of each module, and the folder that holds it.

    Raises:
        ConfigError: as for ``allow``.
    """
    for name, folder in pairs:
        if _imported(name) is None:
            _import_from(name, [Path(folder)])


def not_allowed(
    modules: Sequence[str],
    recorded: Mapping[str, str] | None = None,
    command: str | None = None,
    beside: Sequence[Path] = (),
) -> NotAllowedError:
    """The error that says which modules a run needs, which files they are, and how to allow them.

    Args:
        modules: names of the modules.
        recorded: SHA-256 of each module's file as it was when the run began.
        command: the command that allows them; by default the calls in Python are named.
        beside: folders that are searched after the current one.
    """
    recorded = recorded or {}
    found = [_described(name, recorded.get(name), _folders(beside)) for name in modules]
    if command is None:
        names = "".join(f"{name!r}, " for name in modules).strip()
        command = f"mi_jax.open_run(path, allow_modules=({names})), or import it before."
    return NotAllowedError(
        f"The settings use classes of {', '.join(modules)}. Opening a run never imports code that"
        f" the run names. {' '.join(found)} If you trust the code, allow it: {command}",
        modules,
        recorded,
    )


def _import_from(name: str, folders: Sequence[Path]) -> None:
    """Import a module that lies in the first of some folders that holds it.

    Raises ConfigError if none does, or importing it fails.
    """
    specs = _specs(name, folders)
    if specs is None:
        raise ConfigError(
            f"There is no module {name} in {_searched(folders)}. Run the command in the folder that"
            " holds it, or import the module in Python before the run is opened."
        )
    folder = _folder(specs[0])
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for spec in specs:
        loaded = sys.modules.get(spec.name)
        if loaded is None:
            _execute(spec)
        elif getattr(loaded, "__file__", None) != spec.origin:
            raise ConfigError(
                f"{spec.origin} cannot be imported: another module named {spec.name} is in use"
                f" ({getattr(loaded, '__file__', None)}). Rename one of them."
            )


def _described(name: str, recorded: str | None, folders: Sequence[Path]) -> str:
    """A sentence on the file that would be imported."""
    try:
        specs = _specs(name, folders)
    except ConfigError as error:
        return str(error)
    origin = specs[-1].origin if specs else None
    if origin is None:
        where = _searched(folders)
        return f"There is no module {name} in {where}: go to the folder that holds it first."
    if recorded is None:
        return f"{name} is {origin}; the run recorded no hash of it."
    same = "is the file" if _sha256(Path(origin)) == recorded else "is not the file"
    return f"{name} is {origin}, which by its hash {same} that the run was trained with."


def _types(record: Any) -> Iterator[str]:
    """Names of the form module:Class under the key "type", at any depth."""
    todo = [record]
    while todo:
        value = todo.pop(0)
        if isinstance(value, Mapping):
            name = value.get("type")
            if isinstance(name, str) and ":" in name:
                yield name
            todo += value.values()
        elif isinstance(value, (list, tuple)):
            todo += value


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "mi_jax"


def _ours(name: str) -> ModuleType:
    """A module of mi_jax that defines classes of experiments. Raises ConfigError for any other."""
    parts = MOVED.get(name, name).split(".")
    is_room = len(parts) > 1 and parts[1] in _ROOMS
    known = name in MOVED or (is_room and not any(part.startswith("_") for part in parts))
    try:
        if known:
            return importlib.import_module(name)
    except ImportError:
        pass
    raise ConfigError(
        f"{name} is not a module of mi_jax that defines classes of experiments. The run may be of"
        " another version of mi_jax."
    )


def _imported(name: str) -> ModuleType | None:
    module = sys.modules.get(name)
    return module if isinstance(module, ModuleType) else None


def _folders(beside: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys([Path.cwd(), *(folder.absolute() for folder in beside)]))


def _searched(folders: Sequence[Path]) -> str:
    return f"{', '.join(map(str, folders))} or on the Python path"


def _specs(name: str, folders: Sequence[Path]) -> list[ModuleSpec] | None:
    """The specs of a module and of the packages that it is in, in the first of some folders or of
    the Python path that holds them; None if none does.

    Raises ConfigError for a file inside the directory of a run.
    """
    importlib.invalidate_caches()
    parts = name.split(".")
    for folder in dict.fromkeys([*map(str, folders), *(entry or "." for entry in sys.path)]):
        specs: list[ModuleSpec] = []
        path = [folder]
        for i in range(len(parts)):
            spec = PathFinder.find_spec(".".join(parts[: i + 1]), path)
            if spec is None or spec.origin is None or spec.loader is None:
                break
            run = _run_around(Path(spec.origin))
            if run is not None:
                raise ConfigError(
                    f"{spec.origin} lies in the directory of the run {run}, and code that came with"
                    " a run is never imported. If you trust the file, copy it to a folder of your"
                    " own and run the command there."
                )
            specs.append(spec)
            path = list(spec.submodule_search_locations or ())
        if len(specs) == len(parts):
            return specs
    return None


def _run_around(file: Path) -> Path | None:
    """The run that a file lies in, by its path or by what its path links to."""
    for path in (Path(os.path.abspath(file)), file.resolve()):
        for folder in path.parents:
            if os.path.exists(folder / "run.json"):
                return folder
    return None


def _folder(spec: ModuleSpec) -> Path:
    """The folder that holds a top-level module or package."""
    file = Path(str(spec.origin)).absolute()
    return file.parent.parent if spec.submodule_search_locations is not None else file.parent


def _execute(spec: ModuleSpec) -> None:
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ConfigError(
            f"Importing {spec.origin} failed ({type(error).__name__}: {error}). Mend the file, or"
            " leave the permission out."
        ) from error
    package, _, last = spec.name.rpartition(".")
    if package:
        setattr(sys.modules[package], last, module)


def _sha256(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
