"""Networks written with ``flax.nnx``."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mi_jax.basics.dims import PRNGKey
from mi_jax.contracts import Inputs
from mi_jax.models.modules.base import (
    Flat,
    ModuleArchitecture,
    Network,
    building,
    by_name,
    check_parameters,
    check_same_shapes,
    refuse_state,
)
from mi_jax.models.modules.calls import RUNNING, Calls, listen


@dataclass(frozen=True)
class NnxModule(ModuleArchitecture):
    """A network written with ``flax.nnx``.

    A subclass is a frozen dataclass with ``module(inputs, rngs)``, which makes the network with
    ``rngs`` of the type ``nnx.Rngs``. Its ``nnx.Param`` are trained; it runs in evaluation mode,
    so that dropout does nothing. Other state (``nnx.BatchStat``, ``nnx.Cache``) is refused. Draws
    are those of ``module(inputs, nnx.Rngs(key))`` with the key of each seed.

    Example::

        @dataclass(frozen=True)
        class Mine(NnxModule):
            width: int = 32

            def module(self, inputs, rngs):
                return Net(inputs.vocabulary, inputs.classes, self.width, rngs)
    """

    packages: ClassVar[tuple[str, ...]] = ("flax",)

    def network(self, inputs: Inputs) -> Network:
        """The network through ``flax.nnx``."""
        return _NnxNetwork(self, inputs)


class _NnxNetwork:
    """A network of ``flax.nnx``, split into its graph, its parameters and its random state."""

    def __init__(self, architecture: ModuleArchitecture, inputs: Inputs):
        from flax import nnx

        self._nnx, self._architecture, self._inputs = nnx, architecture, inputs
        name = type(architecture).__name__
        with building(name):
            self._graph, params, rest = self._abstract()
            again = self._abstract()[1]
        kinds: dict[str, str] = {}
        for path, variable in nnx.to_flat_state(rest):
            if not isinstance(variable, nnx.RngState):
                kinds[".".join(map(str, path))] = type(variable).__name__
        refuse_state(name, kinds)
        self._rest = jax.tree.map(_blank, rest)
        leaves, self._structure = jax.tree.flatten(params)
        self.shapes = by_name(name, _names(params), leaves)
        check_parameters(name, self.shapes)
        check_same_shapes(name, self.shapes, by_name(name, _names(again), jax.tree.leaves(again)))

    def _abstract(self) -> Any:
        nnx = self._nnx
        made = nnx.eval_shape(
            lambda: self._architecture.module(self._inputs, nnx.Rngs(jax.random.key(0)))
        )
        return nnx.split(made, nnx.Param, ...)

    def init(self, key: PRNGKey) -> Flat:
        """The parameters of ``module(inputs, nnx.Rngs(key))``."""
        nnx = self._nnx
        made = self._architecture.module(self._inputs, nnx.Rngs(key))
        _, params, _ = nnx.split(made, nnx.Param, ...)
        return dict(zip(_names(params), jax.tree.leaves(params), strict=True))

    def call(self, params: Flat, inputs: Any, calls: Calls) -> Any:
        """The outputs in evaluation mode."""
        module = self.module(params)
        module.eval()
        for path, one in self._nnx.iter_modules(module):
            calls.name(one, ".".join(map(str, path)))
            listen(one, sow=_sow)
        with calls.running():
            return module(inputs)

    def module(self, params: Flat) -> Any:
        """The network with these parameters, as ``module`` made it."""
        state = self._structure.unflatten([params[name] for name in self.shapes])
        return self._nnx.merge(self._graph, state, self._rest)


def _names(params: Any) -> list[str]:
    """The dotted name of every parameter of a state, in the order of its leaves."""
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]:
        # The last key is the array within its variable; a submodule may be named "value" too.
        inner = path[:-1] if isinstance(path[-1], jax.tree_util.GetAttrKey) else path
        names.append(jax.tree_util.keystr(inner, simple=True, separator="."))
    return names


def _blank(value: Any) -> Any:
    """Random state for a network in evaluation mode, which draws nothing."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), value.shape)
    return jnp.zeros(value.shape, value.dtype)


def _sow(self: Any, variable_type: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> bool:
    """Tells the forward pass of a value that is put aside, in place of storing it."""
    calls = RUNNING.get()
    path = None if calls is None else calls.path_of(self)
    if calls is not None and path is not None:
        calls.sown(f"{path}.{name}".lstrip("."), value)
    return True
