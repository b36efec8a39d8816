"""Calls of a network's submodules in one forward pass, and the sites of their values."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state

RUNNING: ContextVar["Calls | None"] = ContextVar("calls", default=None)
"""The forward pass that is being traced in this thread."""


class Here:
    """An identity that marks a place in a network where a tap can sit.

    Keep it as an attribute of a module (``self.middle = Here()``) or name it where it is called
    (``x = Here("middle")(x)``); its site is the path of the module that calls it, with that name.
    It works in ``flax.nnx``, ``flax.linen`` and Equinox.

    Args:
        name: name of the site within the module; by default that of the attribute.

    Example:
        >>> Here("middle")(3.0)
        3.0
    """

    def __init__(self, name: str | None = None):
        self.name = name

    def __call__(self, value: Any) -> Any:
        """The value; in a forward pass of a run, what the tap makes of it."""
        calls = RUNNING.get()
        return value if calls is None else calls.here(self, value)


class Calls:
    """One forward pass: every value that a submodule returns passes through here.

    A module that is called again in one pass has a further site, ``path@2``. A value of several
    arrays has a site for each, ``path[0]``, ``path[1]``. Within ``vmap`` the site holds the value
    of all examples together. Values within ``scan``, ``jit`` or ``remat`` have no site.

    Args:
        at: function (site, value) that returns the value with which the pass continues.
        listens: whether a function sits at a site.
    """

    def __init__(self, at: Callable[[str, Any], Any], listens: Callable[[str], bool]):
        self._at, self._listens = at, listens
        self._paths: dict[int, str] = {}
        self._count: Counter[str] = Counter()
        self._stack: list[tuple[str, Any]] = []
        self._outside = get_opaque_trace_state(convention="nnx")
        self.kinds: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Makes this the forward pass of the thread."""
        token = RUNNING.set(self)
        try:
            yield
        finally:
            RUNNING.reset(token)

    def called(self, path: str, module: Any, call: Callable[[], Any]) -> Any:
        """Calls a submodule; returns its value, or what the taps make of it.

        Args:
            path: its dotted path, empty for the whole network.
            module: the submodule.
            call: computes its value.
        """
        self._stack.append((path, module))
        try:
            value = call()
        finally:
            self._stack.pop()
        return self.value(path, value, type(module).__name__) if path else value

    def name(self, module: Any, path: str) -> None:
        """Gives a module its path; a module in two places has the first one's."""
        self._paths.setdefault(id(module), path)

    def path_of(self, module: Any) -> str | None:
        """The path of a module; None for one that a transformation made anew."""
        return self._paths.get(id(module))

    def here(self, mark: Here, value: Any) -> Any:
        """The value at a mark in the module that runs."""
        path, module = self._stack[-1] if self._stack else ("", None)
        name = mark.name or _attribute(module, mark) or "here"
        return self.value(f"{path}.{name}".lstrip("."), value, "Here")

    def value(self, path: str, value: Any, what: str) -> Any:
        """The value at a path; every array in it passes through the tap at its site.

        Args:
            path: where the value was computed.
            value: an array, or a pytree of arrays.
            what: what computed it, for tables of sites.
        """
        self._count[path] += 1
        count = self._count[path]
        site = path if count == 1 else f"{path}@{count}"
        leaves, structure = jax.tree.flatten(value)
        names = [site] if leaves and leaves[0] is value else _numbered(site, leaves)
        taken = [self._through(name, x, what) for name, x in zip(names, leaves, strict=True)]
        return structure.unflatten(taken)

    def sown(self, path: str, value: Any) -> None:
        """A value that a module put aside: it can be listened to, not replaced."""
        self.value(path, value, "sow")

    def _through(self, name: str, value: Any, what: str) -> Any:
        if not isinstance(value, (jax.Array, np.ndarray)) or not self._listens(name):
            return value
        self.kinds[name] = what
        return _outside_vmaps(lambda x: self._at(name, x), value, self._outside)


def _numbered(site: str, leaves: list[Any]) -> list[str]:
    return [f"{site}[{i}]" for i in range(len(leaves))]


def _outside_vmaps(function: Callable[[Any], Any], value: Any, outside: Any) -> Any:
    """Applies a function to a value of all examples, from within any number of ``vmap``.

    Nothing is applied within other transformations.

    Args:
        function: acts on a value with its batch.
        value: the value where it was computed, for a single example within ``vmap``.
        outside: the state of tracing in which the forward pass began.
    """
    if get_opaque_trace_state(convention="nnx") == outside:
        return function(value)
    inner = jax.custom_batching.custom_vmap(lambda x: x)

    @inner.def_vmap
    def _(axis_size: int, in_batched: list[bool], x: Any) -> tuple[Any, bool]:
        return _outside_vmaps(function, x, outside), True

    return inner(value)


def _attribute(module: Any, mark: Here) -> str | None:
    """The name of the attribute that holds a mark; of a list or dict, with the place in it."""
    for name, held in getattr(module, "__dict__", {}).items():
        if held is mark:
            return name
        items = held.items() if isinstance(held, Mapping) else ()
        items = enumerate(held) if isinstance(held, (list, tuple)) else items
        for key, item in items:
            if item is mark:
                return f"{name}.{key}"
    return None


def listen(module: Any, **methods: Any) -> None:
    """Makes a module tell the running forward pass of its calls.

    Its class is exchanged for a subclass, so that whatever refers to the module, by whichever name,
    refers to the one that tells. Modules that a forward pass does not know behave as before.

    Args:
        module: the module.
        methods: further methods of the subclass, by name.
    """
    object.__setattr__(module, "__class__", _listening(type(module), tuple(methods.items())))


@cache
def _listening(cls: Any, methods: tuple[tuple[str, Any], ...]) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = RUNNING.get()
        path = None if calls is None else calls.path_of(self)
        if calls is None or path is None:
            return cls.__call__(self, *args, **kwargs)
        return calls.called(path, self, lambda: cls.__call__(self, *args, **kwargs))

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, (cls,), {**names, "__call__": call, **dict(methods)})
