"""Identity of the code that a reading depends on.

It is taken from source text, as syntax trees, so that a comment, a docstring or the layout of a
file changes nothing, and no module has to be imported. What a user's function reads from memory
(globals, defaults) is taken by value.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from mi_jax.basics.records import digest
from mi_jax.contracts import Measure, Subject

_HERE = Path(__file__).resolve().parents[1]
"""Folder of the package that is imported."""
_PACKAGE = _HERE
"""Folder of the package whose source text is read."""
_ROOM_DEPTH = 2
"""Parts of the dotted name of a room; a package below one counts as one source."""
_MACHINERY = ("mi_jax.measuring.program", "mi_jax.measuring.labelling")
"""Modules that every reading depends on."""
_NOT_FOLLOWED = frozenset({"mi_jax", "mi_jax.training.trajectory"})
"""Modules that no reading depends on though they are imported: the list of public names, and the
reader of the weights, since the weights are part of a reading's key by their own hashes.
"""
_VERSIONED = ("jax", "jaxlib", "numpy")
"""Packages whose version every reading depends on."""
_PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes, PurePath, type(...))
_ARRAY_TYPES = (np.ndarray, np.generic, jax.Array)
_DATA_TYPES = (*_PLAIN_TYPES, *_ARRAY_TYPES, list, tuple, set, frozenset, dict)
"""Types of the attributes of a user's class that are followed by value."""


class Code(NamedTuple):
    """The code behind a reading.

    Attributes:
        modules: modules of the package from which imports are followed.
        files: paths of the user's own source files, with those that they import.
        values: digest of the functions, and of the values that they read from memory; None where
            these cannot be followed (lambdas, closures, partials, objects), so that nothing is
            reused.
    """

    modules: tuple[str, ...]
    files: tuple[str, ...]
    values: str | None


class Source(NamedTuple):
    """Place of a function's definition.

    Attributes:
        file: path of the source file; the name of the module where there is none.
        name: qualified name of the function.
        line: first line of the definition.
        text: hash of the file, comments included; empty where there is none.
    """

    file: str
    name: str
    line: int
    text: str


class _UnfollowedError(Exception):
    """A value in memory whose contents cannot be told from another's."""


def code_of(subject: Subject, experiment: Any, measure: Measure) -> Code:
    """The code that a measure's readings of a subject depend on.

    Args:
        subject: the model, task and loss that are measured.
        experiment: the experiment's JSON record, which names a user's own classes; None where there
            is none.
        measure: the measure.
    """
    follower = _Follower()
    functions = (
        measure.function,
        *measure.prepare.values(),
        *(labels for labels in measure.coordinates.values() if callable(labels)),
    )
    parts = (type(subject.task), type(subject.loss), *_functions(subject.model))
    try:
        read = [follower.value(function) for function in functions]
        # Without any, the digest is that of earlier versions.
        versions = [[name, metadata.version(name)] for name in subject.model.packages]
        values = digest([*read, *(follower.own(part) for part in parts), *versions])
    except _UnfollowedError:
        values = None
    for thing in (*functions, *parts):
        follower.place(thing)
    for name in _own_classes(experiment):
        follower.files |= _own_file(name)
    modules = {*_MACHINERY, *follower.modules}
    files, imported = _with_imports(follower.files)
    return Code(tuple(sorted(modules | imported)), tuple(sorted(map(str, files))), values)


def code_digest(subject: Subject, *measures: Measure) -> str | None:
    """Hash of everything that measures depend on beside the weights.

    Args:
        subject: the model, task and loss that are measured.
        measures: the measures.

    Returns:
        The hash; None if a measure reads what cannot be followed (see ``Code.values``).
    """
    codes = [code_of(subject, None, measure) for measure in measures]
    if any(code.values is None for code in codes):
        return None
    return digest([[code.values, text_digest(code.modules, code.files)] for code in codes])


def text_digest(modules: Iterable[str], files: Iterable[str]) -> str | None:
    """Hash of source text and of the versions of jax, jaxlib and numpy; nothing is imported.

    Args:
        modules: modules of the package; everything that they import in the package is included.
        files: paths of further source files.

    Returns:
        The hash; None if a file cannot be read.
    """
    try:
        ours = _package_digest(tuple(sorted(modules)), _PACKAGE, _stamp(_PACKAGE))
        theirs = [[Path(file).name, _file_digest(Path(file))] for file in files]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return digest([ours, theirs, [[name, metadata.version(name)] for name in _VERSIONED]])


def source_of(function: Callable[..., Any]) -> Source:
    """Place where a function, or the class of a callable object, is defined."""
    if inspect.isfunction(function):
        function = _unchecked(function)
    defined: Any = function if hasattr(function, "__qualname__") else type(function)
    # A compiled function (jax.jit) has no file of its own.
    file = _file_of(defined if inspect.isfunction(defined) else inspect.unwrap(defined))
    code = getattr(function, "__code__", None)
    return Source(
        str(file) if file is not None else str(getattr(defined, "__module__", "")),
        getattr(defined, "__qualname__", type(function).__name__),
        code.co_firstlineno if code is not None else 0,
        hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else "",
    )


def is_shipped(measure: Measure, registered: Measure) -> bool:
    """Whether a measure has the functions of a registered one, or of one made with options by the
    same function of the package.
    """
    if measure is registered:
        return True
    if set(measure.prepare) != set(registered.prepare):
        return False
    pairs = [
        (measure.function, registered.function),
        *((measure.prepare[name], registered.prepare[name]) for name in measure.prepare),
    ]
    try:
        return all(_Follower().value(ours) == _Follower().value(theirs) for ours, theirs in pairs)
    except _UnfollowedError:
        return False


def still_defined(source: Source) -> bool:
    """Whether the file of a source still defines a function of that name."""
    try:
        tree = ast.parse(Path(source.file).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    name = source.name.rpartition(".")[2]
    return any(
        isinstance(node, ast.Lambda) if name == "<lambda>" else getattr(node, "name", None) == name
        for node in ast.walk(tree)
    )


# --- Source text ---


def _file_digest(file: Path | None) -> str:
    """Hash of a file's syntax tree without docstrings."""
    # A stored recipe may name anything: a device or a pipe would never end.
    if file is None or not file.is_file():
        raise FileNotFoundError
    stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size).digest


class _Text(NamedTuple):
    """A parsed file.

    Attributes:
        digest: hash of its syntax tree.
        imports: (module, name, name that it is bound to) of each import; the module of a relative
            one begins with dots, the name is None for ``import module``.
    """

    digest: str
    imports: tuple[tuple[str, str | None, str], ...]


@functools.lru_cache(maxsize=1024)
def _parsed(file: Path, modified: int, size: int) -> _Text:
    """A file's text, parsed again when the file changed."""
    return _parse(file.read_bytes())


@functools.lru_cache(maxsize=1024)
def _parse(text: bytes) -> _Text:
    tree = ast.parse(text)
    imports: list[tuple[str, str | None, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, None, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            imports += [(base, alias.name, alias.asname or alias.name) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            # A string that stands alone is a docstring, or documents the line above.
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return _Text(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(file: Path) -> tuple[tuple[str, str | None, str], ...]:
    stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size).imports


def _package_file(module: str) -> Path | None:
    """Source file of a module of the package; None if there is no such module."""
    first, *rest = module.split(".")
    if first != "mi_jax":
        return None
    folder = _PACKAGE.joinpath(*rest)
    for file in (folder / "__init__.py", folder.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _package_modules(module: str, name: str | None) -> set[str]:
    """Modules of the package that ``from module import name`` depends on.

    Where a package's ``__init__`` only hands on a name, that is the module which defines it.
    """
    if name is not None and _package_file(f"{module}.{name}") is not None:
        return {f"{module}.{name}"}
    file = _package_file(module)
    if file is None:
        return set()
    if file.name == "__init__.py" and name is not None:
        for base, original, bound in _imports(file):
            if bound == name and original is not None:
                return _package_modules(_absolute(base, module, is_package=True), original)
    return {module}


def _absolute(base: str, module: str, *, is_package: bool) -> str:
    """The absolute name of the module of an import in ``module``."""
    name = base.lstrip(".")
    level = len(base) - len(name)
    if not level:
        return base
    parts = module.split(".")
    kept = parts[: len(parts) - level + is_package]
    return ".".join([*kept, *([name] if name else [])])


def _closure(modules: Iterable[str]) -> set[str]:
    """Modules of the package, with all that they import in it."""
    todo, seen = [module for module in modules if module not in _NOT_FOLLOWED], set[str]()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        file = _package_file(module)
        if file is None:
            raise FileNotFoundError(module)
        stat = file.stat()
        imported = _imported_modules(module, file, stat.st_mtime_ns, stat.st_size)
        todo += imported - seen - _NOT_FOLLOWED
    return seen


def _stamp(folder: Path) -> str:
    """Identity of the state of all source files of a folder: names, times and sizes."""
    entries: list[Any] = []
    todo = [str(folder)]
    while todo:
        with os.scandir(todo.pop()) as items:
            for item in items:
                if item.is_dir():
                    if item.name != "__pycache__":
                        todo.append(item.path)
                elif item.name.endswith(".py"):
                    stat = item.stat()
                    entries.append([item.path, stat.st_mtime_ns, stat.st_size])
    return digest(sorted(entries))


@functools.lru_cache(maxsize=1024)
def _package_digest(modules: tuple[str, ...], folder: Path, stamp: str) -> str:
    """Hash of the source of modules of the package and of all that they import in it."""
    return digest([[name, _file_digest(_package_file(name))] for name in sorted(_closure(modules))])


@functools.lru_cache(maxsize=1024)
def _imported_modules(module: str, file: Path, modified: int, size: int) -> frozenset[str]:
    """Modules of the package that one of them imports."""
    is_package = file.name == "__init__.py"
    return frozenset(
        found
        for base, name, _ in _imports(file)
        for found in _package_modules(_absolute(base, module, is_package=is_package), name)
    )


# --- The user's own files ---


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Folders of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(paths[name]).resolve() for name in names})


def _is_own(file: Path) -> bool:
    """Whether a source file is the user's: neither installed nor part of mi_jax."""
    if file.suffix != ".py" or not file.is_file():
        return False
    if "site-packages" in file.parts or "dist-packages" in file.parts:
        return False
    folders = (*_installed(), _PACKAGE, _HERE)
    return not any(file.is_relative_to(folder) for folder in folders)


def _file_of(thing: Any) -> Path | None:
    """Source file of a function, class or module; None if there is none (a notebook's cell)."""
    try:
        file = Path(inspect.getfile(thing)).resolve()
    except (TypeError, OSError):
        return None
    return file if file.is_file() else None


def _find(module: str, folders: list[str]) -> Path | None:
    """Source file of a module, found without importing it."""
    if module.split(".")[0] in sys.stdlib_module_names:
        return None
    path: Any = folders
    spec, parts = None, module.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), path)
        if spec is None:
            break
        path = list(spec.submodule_search_locations or ())
    origin = spec.origin if spec is not None else None
    if origin is None:
        origin = getattr(sys.modules.get(module), "__file__", None)
    return None if origin is None else Path(origin).resolve()


def _own_file(module: str) -> set[Path]:
    """The user's file of a module by name, if it is found."""
    file = _find(module, sys.path)
    return {file} if file is not None and _is_own(file) else set()


def _with_imports(files: Iterable[Path]) -> tuple[set[Path], set[str]]:
    """The user's files with those that they import, and the modules of mi_jax imported there."""
    todo, seen, ours = list(files), set[Path](), set[str]()
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        try:
            imports = _imports(file)
        except (OSError, SyntaxError):
            continue
        for base, name, _ in imports:
            if base.split(".")[0] == "mi_jax":
                ours |= _package_modules(base, name) - _NOT_FOLLOWED
                continue
            todo += _imported_files(file, base, name)
    return seen, ours


def _imported_files(file: Path, base: str, name: str | None) -> list[Path]:
    """The user's files that one import in a file reads."""
    level = len(base) - len(base.lstrip("."))
    folder = file.parent
    for _ in range(level - 1):
        folder = folder.parent
    folders = [str(folder)] if level else [str(folder), *sys.path]
    names = [base.lstrip("."), *([f"{base.lstrip('.')}.{name}".strip(".")] if name else [])]
    found = [_find(candidate, folders) for candidate in names if candidate]
    if level and not base.lstrip("."):
        found.append(folder / "__init__.py")
    return [path for path in found if path is not None and _is_own(path)]


# --- Values in memory ---


def _functions(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The functions in a model, among them those that other functions are closed over."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if inspect.isfunction(value):
        yield value
        value = _unchecked(value)
        inner = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
    elif isinstance(value, functools.partial):
        inner = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (tuple, list)):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        inner = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for item in inner:
        yield from _functions(item, seen)


def _is_full(cell: Any) -> bool:
    """Whether a closure's cell has a value yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _own_classes(experiment: Any) -> Iterator[str]:
    """Modules of the user's own model, task and loss, as an experiment's record names them."""
    for part in ("model", "task", "loss"):
        record = experiment.get(part) if isinstance(experiment, Mapping) else None
        name = record.get("type") if isinstance(record, Mapping) else None
        if isinstance(name, str) and ":" in name:
            yield name.partition(":")[0]


class _Follower:
    """Follows a function through everything that it reads from memory.

    Attributes:
        modules: modules of the package that were met.
        files: the user's own files that were met.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.files: set[Path] = set()
        self._seen: dict[int, Any] = {}

    def place(self, thing: Any) -> None:
        """Note the module or the file in which a function or class is defined."""
        if not hasattr(thing, "__qualname__"):
            thing = type(thing)
        while thing is not None:
            module, file = str(getattr(thing, "__module__", None) or ""), _file_of(thing)
            if module.split(".")[0] == "mi_jax" and (file is None or not _is_own(file)):
                self.modules |= _with_siblings(module) - _NOT_FOLLOWED
            elif file is not None and _is_own(file):
                self.files.add(file)
            # A compiled function (jax.jit) has no file of its own.
            thing = getattr(thing, "__wrapped__", None)

    def value(self, value: Any) -> Any:
        """A JSON value that identifies a value. Raises _UnfollowedError."""
        if isinstance(value, _PLAIN_TYPES):
            return [type(value).__name__, repr(value)]
        if isinstance(value, _ARRAY_TYPES):
            return _array(value)
        if id(value) in self._seen:
            return self._again(value)
        self._seen[id(value)] = value
        if isinstance(value, (tuple, list)):
            return [*self._type(type(value)), [self.value(item) for item in value]]
        if isinstance(value, (set, frozenset)):
            return [type(value).__name__, sorted(digest(self.value(item)) for item in value)]
        if isinstance(value, Mapping):
            return ["mapping", [[self.value(k), self.value(v)] for k, v in value.items()]]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        return self._object(value)

    def own(self, part: Any) -> Any:
        """A JSON value that identifies what a part of the model, the task or the loss reads from
        the memory of the user's modules; None for a part of the package, which reads nothing.

        A model's functions are closed over its settings, which belong to the experiment.
        """
        if isinstance(part, FunctionType):
            part = _unchecked(part)
            file = _file_of(part)
            return self._code(part) if file is None or _is_own(file) else None
        return self.value(part)

    def _again(self, value: Any) -> Any:
        """Which of the values that were met before one is."""
        return ["again", list(self._seen).index(id(value))]

    def _object(self, value: Any) -> Any:
        cls = type(value)
        ours = cls.__module__.split(".")[0] == "mi_jax"
        if dataclasses.is_dataclass(cls):
            if not ours and not cls.__dataclass_params__.frozen:  # pyright: ignore
                raise _UnfollowedError
            fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(cls)]
            return [*self._type(cls), [[name, self.value(item)] for name, item in fields]]
        if ours and hasattr(value, "__dict__"):
            return [*self._type(cls), self.value(vars(value))]
        if _is_named(value):
            return ["named", value.__module__, value.__qualname__]
        raise _UnfollowedError

    def _type(self, cls: type) -> list[Any]:
        if cls in (tuple, list):
            return [cls.__name__]
        return [cls.__module__, cls.__qualname__, self.value(cls)]

    def _class(self, cls: type) -> Any:
        self.place(cls)
        file = _file_of(cls)
        # A class without a file is built in, unless a notebook's cell made it.
        if (file is None and cls.__module__ != "__main__") or (file and not _is_own(file)):
            return ["class", cls.__module__, cls.__qualname__]
        parts: list[Any] = [self.value(base) for base in cls.__bases__ if base is not object]
        for name, item in vars(cls).items():
            inner = getattr(item, "__func__", None) or getattr(item, "fget", None) or item
            if isinstance(inner, FunctionType) and _file_of(inner) == file:
                parts.append([name, self._code(inner)])
            elif isinstance(item, _DATA_TYPES) and not name.startswith("__"):
                parts.append([name, self.value(item)])
        return ["class", cls.__qualname__, parts]

    def _function(self, function: FunctionType) -> Any:
        self.place(function)
        function = _unchecked(function)
        closure = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        file = _file_of(function)
        if file is None or _is_own(file):
            if closure or function.__name__ == "<lambda>" or hasattr(function, "__wrapped__"):
                raise _UnfollowedError
            return self._code(function)
        name = ["function", function.__module__, function.__code__.co_qualname]
        if not file.is_relative_to(_HERE) and _is_named(function):
            return name
        # The source is known by its module; only the values that it was made with differ.
        return [*name, function.__qualname__, [self.value(item) for item in (*closure, *defaults)]]

    def _code(self, function: FunctionType) -> Any:
        """Identity of a user's function: its code, its defaults and the globals that it names."""
        values: list[Any] = [function.__qualname__, _identity(function.__code__, top=True)]
        defaults = {
            **dict(enumerate(function.__defaults__ or ())),
            **(function.__kwdefaults__ or {}),
        }
        values += [[str(name), self.value(item)] for name, item in defaults.items()]
        names = sorted(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
            elif isinstance(sys.modules.get(name), ModuleType):
                value = sys.modules[name]  # imported inside the function
            else:
                continue
            values.append([name, self._global(value, names)])
        return values

    def _global(self, value: Any, names: list[str]) -> Any:
        if not isinstance(value, ModuleType):
            return self.value(value)
        ours = value.__name__.split(".")[0] == "mi_jax"
        file = _file_of(value)
        if not ours and (file is None or not _is_own(file)):
            return ["module", value.__name__]
        if id(value) in self._seen:
            return self._again(value)
        self._seen[id(value)] = value
        if ours:
            self.modules |= {value.__name__} - _NOT_FOLLOWED
        elif file is not None:
            self.files.add(file)
        inner = [
            [name, self._global(getattr(value, name), names)]
            for name in names
            if hasattr(value, name)
        ]
        return ["module", value.__name__, inner]


def _unchecked(function: FunctionType) -> FunctionType:
    """The function that jaxtyping checks the arguments of, where it does."""
    while "jaxtyping" in Path(function.__code__.co_filename).parts:
        inner = getattr(function, "__wrapped__", None)
        if not isinstance(inner, FunctionType):
            break
        function = inner
    return function


def _with_siblings(module: str) -> set[str]:
    """A module of the package; one in a package below a room comes with that whole package."""
    parts = module.split(".")
    if len(parts) <= _ROOM_DEPTH + 1:
        return {module}
    folder = _PACKAGE.joinpath(*parts[1:-1])
    package = ".".join(parts[:-1])
    return {f"{package}.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"}


def _array(value: Any) -> Any:
    try:
        array = np.asarray(value)
    except Exception as error:  # a key, or a value that is being traced
        raise _UnfollowedError from error
    if array.dtype == object:
        raise _UnfollowedError
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def _is_named(value: Any) -> bool:
    """Whether a value is an importable function or object of an installed package."""
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    name = getattr(value, "__qualname__", None)
    if isinstance(value, BuiltinFunctionType) and module is None:
        return True
    file = _file_of(module)
    if module is None or name is None or (file is not None and _is_own(file)):
        return False
    return getattr(module, name, None) is value


def _names(code: CodeType) -> set[str]:
    """Names that a code object and those inside it look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names(constant) for constant in inner))


def _identity(code: CodeType, *, top: bool = False) -> Any:
    """Parts of a code object that distinguish two functions of one file; no line, no docstring."""
    documented = bool(code.co_flags & inspect.CO_NEWLOCALS) and bool(code.co_consts)
    constants = [
        _identity(constant) if isinstance(constant, CodeType) else _constant(constant)
        for index, constant in enumerate(code.co_consts)
        if not (documented and index == 0 and isinstance(constant, str))
    ]
    return [code.co_qualname, code.co_code.hex(), list(code.co_names), constants]


def _constant(value: Any) -> str:
    # The order of a set of strings differs between processes.
    return repr(sorted(value, key=repr)) if isinstance(value, frozenset) else repr(value)
