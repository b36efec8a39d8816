"""Networks written with ``flax.nnx``."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.basics.dims import PRNGKey
from mi_jax.basics.errors import ConfigError
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
    so that dropout does nothing. Plain arrays, such as a mask, are constants and must be the same
    for every seed. Other state (``nnx.BatchStat``, ``nnx.Cache``) is refused. Draws are those of
    ``module(inputs, nnx.Rngs(key))`` with the key of each seed.

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
            made, again = self._twice()
        plain = _plain_arrays(nnx, made)
        if not all(map(_equal, plain, _plain_arrays(nnx, again))):
            raise ConfigError(
                f"{name}.module draws arrays that are no parameters from its seed. They are stored"
                " nowhere, and must be the same for every seed. Make them nnx.Param."
            )
        self._graph, params, rest = nnx.split(made, nnx.Param, ...)
        refuse_state(
            name,
            {
                ".".join(map(str, path)): type(variable).__name__
                for path, variable in nnx.to_flat_state(rest)
                if isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.RngState)
            },
        )
        self._rest = jax.tree.map(
            lambda x: jax.tree.map(_blank, x) if isinstance(x, nnx.Variable) else x,
            rest,
            is_leaf=lambda x: isinstance(x, nnx.Variable),
        )
        leaves, self._structure = jax.tree.flatten(params)
        self.shapes = {
            parameter: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for parameter, leaf in by_name(name, _names(params), leaves).items()
        }
        check_parameters(name, self.shapes)
        others = nnx.split(again, nnx.Param, ...)[1]
        check_same_shapes(name, self.shapes, by_name(name, _names(others), jax.tree.leaves(others)))

    def _twice(self) -> tuple[Any, Any]:
        """The network, made twice: as shapes alone, or drawn where it holds plain arrays too."""

        def make(seed: int) -> Any:
            return self._architecture.module(self._inputs, self._nnx.Rngs(jax.random.key(seed)))

        try:
            once, again = (self._nnx.eval_shape(lambda: make(0)) for _ in range(2))
            if not _plain_arrays(self._nnx, once):
                return once, again
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError):
            raise
        except Exception:
            # A network that cannot be traced as shapes says why when it is made.
            pass
        return make(0), make(1)

    def init(self, key: PRNGKey) -> Flat:
        """The parameters of ``module(inputs, nnx.Rngs(key))``."""
        nnx = self._nnx
        made = self._architecture.module(self._inputs, nnx.Rngs(key))
        params = nnx.split(made, nnx.Param, ...)[1]
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


def _plain_arrays(nnx: Any, module: Any) -> list[Any]:
    """The arrays that a network's modules hold beside their variables."""
    held = (value for _, one in nnx.iter_modules(module) for value in vars(one).values())
    return [value for value in held if isinstance(value, (jax.Array, np.ndarray))]


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other, equal_nan=True)


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
