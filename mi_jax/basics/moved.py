"""Old module paths and names of version 0.1.0, which still work but warn, until version 0.3.

Importing an old path gives the module that took its place.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

MOVED = {
    "mi_jax.across": "mi_jax.runs.across",
    "mi_jax.arrays": "mi_jax.basics.dims",
    "mi_jax.errors": "mi_jax.basics.errors",
    "mi_jax.experiment": "mi_jax.runs.train",
    "mi_jax.lapack": "mi_jax.basics.lapack",
    "mi_jax.library": "mi_jax.runs.library",
    "mi_jax.pytrees": "mi_jax.basics.pytrees",
    "mi_jax.readings": "mi_jax.measuring.registry",
    "mi_jax.settings": "mi_jax.runs.experiment",
    "mi_jax.streams": "mi_jax.basics.streams",
}
"""New path of each module that has moved, by its old path."""


class _MovedFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook that loads the new module under its old path."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        message = (
            f"{fullname} has moved to {MOVED[fullname]}. The old path will be removed in"
            " mi_jax 0.3."
        )
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # After a module has run, the import system returns its entry in sys.modules.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def renamed_attributes(
    module: str, names: Mapping[str, str], *, removed: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` that accepts old names of attributes, with a warning.

    Args:
        module: name of the module.
        names: new name of each attribute, by its old name.
        removed: by the name of an attribute that has no successor of the same meaning, a sentence
            that says what to use. The AttributeError holds it.
    """

    def get(name: str) -> Any:
        if removed is not None and name in removed:
            raise AttributeError(f"{module}.{name} was removed in mi_jax 0.2. {removed[name]}")
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        message = (
            f"{module}.{name} is now {names[name]}. The old name will be removed in mi_jax 0.3."
        )
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return get


def install() -> None:
    """Make old paths importable in this process. This imports none of the modules."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
