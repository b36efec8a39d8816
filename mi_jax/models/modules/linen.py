"""Networks written with ``flax.linen``."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from mi_jax.basics.dims import PRNGKey
from mi_jax.basics.pytrees import dotted, nested
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
from mi_jax.models.modules.calls import Calls


@dataclass(frozen=True)
class LinenModule(ModuleArchitecture):
    """A network written with ``flax.linen``.

    A subclass is a frozen dataclass with ``module(inputs, rngs)``, which returns the network;
    ``rngs`` is None, since linen draws in ``init``. The collection ``params`` is trained; a network
    with others (``batch_stats``, ``cache``) is refused. It is called with its inputs alone, so
    dropout must be off by default. Draws are those of ``network.init(key, inputs)``.

    Example::

        @dataclass(frozen=True)
        class Mine(LinenModule):
            width: int = 32

            def module(self, inputs, rngs):
                return Net(inputs.classes, self.width)
    """

    packages: ClassVar[tuple[str, ...]] = ("flax",)

    def network(self, inputs: Inputs) -> Network:
        """The network through ``flax.linen``."""
        return _LinenNetwork(self, inputs)


class _LinenNetwork:
    """A network of ``flax.linen``."""

    def __init__(self, architecture: ModuleArchitecture, inputs: Inputs):
        from flax import linen

        name = type(architecture).__name__
        self._linen, self._example = linen, example(inputs, 1)
        with building(name):
            self._module = architecture.module(inputs, None)
            made, again = (jax.eval_shape(self._variables, jax.random.key(0)) for _ in range(2))
        others = {key: value for key, value in made.items() if key not in ("params", _SOWN)}
        refuse_state(
            name,
            {path: kind for kind, tree in others.items() for path in dotted(tree)},
        )
        self.shapes = dotted(made.get("params", {}))
        check_parameters(name, self.shapes)
        check_same_shapes(name, self.shapes, dotted(again.get("params", {})))

    def _variables(self, key: PRNGKey) -> dict[str, Any]:
        return self._module.init(key, self._example)

    def init(self, key: PRNGKey) -> Flat:
        """The parameters of ``network.init(key, inputs)``."""
        return dotted(self._variables(key)["params"])

    def call(self, params: Flat, inputs: Any, calls: Calls) -> Any:
        """The outputs."""

        def listening(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            path = ".".join(context.module.path)
            return calls.called(path, context.module, lambda: call(*args, **kwargs))

        variables = {"params": nested(params)}
        with calls.running(), self._linen.intercept_methods(listening):
            out, made = self._module.apply(variables, inputs, mutable=[_SOWN])
        paths = jax.tree_util.tree_flatten_with_path(
            made.get(_SOWN, {}), is_leaf=lambda x: isinstance(x, tuple)
        )[0]
        for path, values in paths:
            for value in values:
                calls.sown(jax.tree_util.keystr(path, simple=True, separator="."), value)
        return out

    def module(self, params: Flat) -> Any:
        """The network bound to these parameters."""
        return self._module.bind({"params": nested(params)})


_SOWN = "intermediates"
"""Collection that ``sow`` puts values into."""
