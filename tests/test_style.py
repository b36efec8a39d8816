"""The rules of CONTRIBUTING's "Language" that can be held mechanically."""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mi_jax

_ROOT = Path(__file__).parents[1]
_FILES = sorted((_ROOT / "mi_jax").rglob("*.py"))
_OPENERS = re.compile(r"(What|Those|Of|As)\b")
_BANNED = re.compile(
    r"\bcan't be\b|\bso manyth\b|\bgo(es)? on with\b|\bgone on with\b|\bof one's own\b"
)


def _documented(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, docstring) of a module and of every class and function in it."""
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("file", _FILES, ids=lambda file: str(file.relative_to(_ROOT)))
def test_a_docstring_opens_by_naming_its_thing(file: Path) -> None:
    for line, text in _documented(ast.parse(file.read_text())):
        assert not _OPENERS.match(text), f"{file}:{line}: {text.splitlines()[0]}"


@pytest.mark.parametrize("file", _FILES, ids=lambda file: str(file.relative_to(_ROOT)))
def test_no_line_is_too_long_or_has_a_phrase_that_a_newcomer_reads_twice(file: Path) -> None:
    for number, line in enumerate(file.read_text().splitlines(), 1):
        assert not _BANNED.search(line), f"{file}:{number}: {line.strip()}"
        assert len(line) <= 100, f"{file}:{number} has {len(line)} columns"


def _public() -> Iterator[tuple[str, Any]]:
    """Every function and class that ``mi_jax.__all__`` reaches, once."""
    seen: set[int] = set()

    def walk(owner: ModuleType, prefix: str) -> Iterator[tuple[str, Any]]:
        for name in owner.__all__:
            thing = getattr(owner, name)
            if isinstance(thing, ModuleType):
                if hasattr(thing, "__all__"):
                    yield from walk(thing, f"{prefix}{name}.")
                else:
                    yield from _own(thing, f"{prefix}{name}.")
            elif (inspect.isfunction(thing) or inspect.isclass(thing)) and id(thing) not in seen:
                seen.add(id(thing))
                yield f"{prefix}{name}", thing

    yield from walk(mi_jax, "")


def _own(module: ModuleType, prefix: str) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module defines."""
    for name, thing in vars(module).items():
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__:
            yield f"{prefix}{name}", thing


_PUBLIC = dict(_public())


def _parameters(function: Callable[..., Any]) -> list[str]:
    code = inspect.unwrap(function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name not in ("self", "cls")]


def _section(text: str, head: str) -> str:
    """A section of a docstring: from ``Args:`` to the next head."""
    match = re.search(rf"^{head}:\n(.*?)(?=^\w+:$|\Z)", text, re.DOTALL | re.MULTILINE)
    return match.group(1) if match else ""


def _unnamed(names: list[str], section: str) -> list[str]:
    """The names that no line of a section opens with."""
    heads = re.findall(r"^\s+([\w*, ]+?)(?: \([^)]*\))?:", section, re.MULTILINE)
    told = {name.strip(" *") for head in heads for name in head.split(",")}
    return [name for name in names if name.strip("*") not in told]


def _lacking(name: str, thing: Any) -> list[str]:
    """What the docstring of a public thing lacks, a line each."""
    text = inspect.getdoc(thing) or ""
    if not text:
        return [f"{name} has no docstring"]
    if inspect.isclass(thing):
        fields = (
            [f.name for f in dataclasses.fields(thing) if f.init]
            if dataclasses.is_dataclass(thing)
            else []
        )
        own = [f for f in fields if f in vars(thing).get("__annotations__", {})]
        unnamed = _unnamed(own, _section(text, "Attributes")) if len(own) > 1 else []
        return [f"{name}: Attributes lacks {', '.join(unnamed)}"] if unnamed else []
    names = _parameters(thing)
    unnamed = _unnamed(names, _section(text, "Args")) if len(names) > 1 else []
    return [f"{name}: Args lacks {', '.join(unnamed)}"] if unnamed else []


@pytest.mark.parametrize("name", list(_PUBLIC))
def test_a_public_docstring_names_every_argument(name: str) -> None:
    assert not _lacking(name, _PUBLIC[name])


def _methods(cls: type) -> list[tuple[str, Any]]:
    """The public methods that a class defines itself."""
    return [
        (f"{cls.__name__}.{name}", method)
        for name, method in vars(cls).items()
        if inspect.isfunction(method) and (not name.startswith("_") or name == "__call__")
        if name not in getattr(cls, "__dataclass_fields__", {})
    ]


_CONTRACTS = importlib.import_module("mi_jax.contracts")
_WITH_METHODS = [mi_jax.Run, mi_jax.Experiment] + [
    thing for name in _CONTRACTS.__all__ if inspect.isclass(thing := getattr(_CONTRACTS, name))
]


@pytest.mark.parametrize("cls", _WITH_METHODS, ids=lambda cls: cls.__name__)
def test_a_method_that_users_call_or_write_names_every_argument(cls: type) -> None:
    assert not [line for name, method in _methods(cls) for line in _lacking(name, method)]
