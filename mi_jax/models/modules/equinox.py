"""Networks written with Equinox."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from mi_jax.basics.dims import PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Inputs
from mi_jax.models.modules.base import (
    Flat,
    ModuleArchitecture,
    Network,
    building,
    check_parameters,
    check_same_shapes,
    example,
    refuse_state,
)
from mi_jax.models.modules.calls import Calls, listen


@dataclass(frozen=True)
class EquinoxModule(ModuleArchitecture):
    """A network written with Equinox.

    A subclass is a frozen dataclass with ``module(inputs, rngs)``, which makes the network with
    ``rngs``, a key of ``jax.random``. Its floating-point arrays are trained; an array that stands
    in two places is one parameter. It runs in inference mode, so that dropout does nothing. It is
    called with a batch; a network that takes one example is called through ``jax.vmap``. State
    (``eqx.nn.State``) is refused.

    Example::

        @dataclass(frozen=True)
        class Mine(EquinoxModule):
            width: int = 32

            def module(self, inputs, rngs):
                return Net(inputs.vocabulary, inputs.classes, self.width, key=rngs)
    """

    packages: ClassVar[tuple[str, ...]] = ("equinox",)

    def network(self, inputs: Inputs) -> Network:
        """The network through Equinox."""
        return _EquinoxNetwork(self, inputs)


class _EquinoxNetwork:
    """A network of Equinox, split into its parameters and all else."""

    def __init__(self, architecture: ModuleArchitecture, inputs: Inputs):
        import equinox

        self._eqx, self._architecture, self._inputs = equinox, architecture, inputs
        self._name = name = type(architecture).__name__
        with building(name):
            # Drawn, not traced: what is no parameter (integers, functions) is kept by value.
            made, again = (architecture.module(inputs, jax.random.key(seed)) for seed in (0, 1))
        if not isinstance(made, equinox.Module):
            raise ConfigError(
                f"{name}.module returned {type(made).__name__}. It must return an equinox.Module;"
                " one with state cannot be trained here."
            )
        refuse_state(name, dict(self._state(made)))
        arrays, self._rest = equinox.partition(made, equinox.is_inexact_array)
        paths, self._structure = jax.tree_util.tree_flatten_with_path(arrays)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        first: dict[int, str] = {}
        self._filled = [
            first.setdefault(id(leaf), name) for name, (_, leaf) in zip(names, paths, strict=True)
        ]
        self.shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, (_, leaf) in zip(names, paths, strict=True)
            if first[id(leaf)] == name
        }
        check_parameters(name, self.shapes)
        others, rest = equinox.partition(again, equinox.is_inexact_array)
        other_paths = jax.tree_util.tree_flatten_with_path(others)[0]
        check_same_shapes(
            name,
            {jax.tree_util.keystr(path): leaf for path, leaf in paths},
            {jax.tree_util.keystr(path): leaf for path, leaf in other_paths},
        )
        if not equinox.tree_equal(
            *(equinox.filter(r, equinox.is_array) for r in (rest, self._rest))
        ):
            raise ConfigError(
                f"{name}.module draws arrays of whole numbers from its key. They are no parameters,"
                " and must be the same for every seed."
            )
        self._by_example = not self._takes_a_batch()

    def _state(self, made: Any) -> Iterator[tuple[str, str]]:
        kind = self._eqx.nn.StateIndex
        leaves = jax.tree_util.tree_flatten_with_path(made, is_leaf=lambda x: isinstance(x, kind))
        for path, leaf in leaves[0]:
            if isinstance(leaf, kind):
                yield jax.tree_util.keystr(path, simple=True, separator="."), "State"

    def _takes_a_batch(self) -> bool:
        """Whether the network can be called with a batch and answers with as many rows."""
        x = example(self._inputs, 3)
        try:
            out = jax.eval_shape(lambda params, x: self._inference(params)(x), dict(self.shapes), x)
        except Exception:
            return False
        shape: tuple[int, ...] = getattr(out, "shape", ())
        return len(shape) in (2, 3) and next(iter(shape)) == 3

    def init(self, key: PRNGKey) -> Flat:
        """The parameters of ``module(inputs, key)``."""
        made = self._architecture.module(self._inputs, key)
        leaves = jax.tree.leaves(self._eqx.filter(made, self._eqx.is_inexact_array))
        drawn = dict(zip(reversed(self._filled), reversed(leaves), strict=True))
        return {name: drawn[name] for name in self.shapes}

    def call(self, params: Flat, inputs: Any, calls: Calls) -> Any:
        """The outputs in inference mode."""
        module = self._inference(params)
        for path, one in _modules(module, self._eqx.Module):
            calls.name(one, path)
            listen(one)
        with calls.running():
            return jax.vmap(module)(inputs) if self._by_example else module(inputs)

    def _inference(self, params: Flat) -> Any:
        return self._eqx.nn.inference_mode(self.module(params))

    def module(self, params: Flat) -> Any:
        """The network with these parameters, as ``module`` made it."""
        arrays = self._structure.unflatten([params[name] for name in self._filled])
        return self._eqx.combine(arrays, self._rest)


def _modules(value: Any, kind: type, path: str = "") -> Iterator[tuple[str, Any]]:
    """The modules in a network with their paths, each before those that it holds."""
    if isinstance(value, kind):
        yield path, value
        items: Any = vars(value).items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    else:
        return
    for key, held in items:
        yield from _modules(held, kind, f"{path}.{key}".lstrip("."))
