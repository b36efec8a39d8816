"""Taps: functions that record or replace the values at named sites of a model.

At an activation a tap is a function ``value -> value``; at a product with a weight it is
``(x, W) -> product``. ``capture`` returns recorded values as outputs of the function, so it is safe
under jit, vmap, map, grad and remat.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.contracts import Site, Tap, Taps


class _Recorder(NamedTuple):
    """A tap that records what its inner tap, or the model itself, returned."""

    store: dict[str, Any]
    name: str
    inner: Tap | None

    def __call__(self, *values: Any) -> Any:
        """Records at an activation's site, in a model that calls its taps itself."""
        return self.record(lambda value: value, values)

    def record(self, default: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        # The barrier makes XLA compute the value once, for the recording and for the rest of the
        # forward pass.
        self.store[self.name] = jax.lax.optimization_barrier((self.inner or default)(*values))
        return self.store[self.name]


class ByPosition(NamedTuple):
    """A tap on the embedded tokens that treats each token alone.

    Such a tap can act on a table of tokens instead of on every example, so a model can keep its
    fast route under it.
    """

    function: Callable[[Any, int], Any]
    """(rows [token d], position) -> rows."""

    def __call__(self, value: Any) -> Any:
        """Applies the function to values [batch position d]."""
        return jnp.stack([self.function(value[:, s], s) for s in range(value.shape[1])], axis=1)


class Tapped:
    """The taps of one forward pass, as a model applies them.

    A model calls ``at`` for every activation and ``product`` for every product with a weight.

    Args:
        taps: functions by the name of their site, or None.
        sites: the sites of the model.

    Raises:
        ConfigError: if a tap names a site that the model does not have, or would replace a value
            that can only be recorded.
    """

    def __init__(self, taps: Taps | None, sites: Iterable[Site]):
        self._taps = dict(taps or {})
        kinds = {site.name: site.kind for site in sites}
        for name, tap in self._taps.items():
            if name not in kinds:
                raise ConfigError(f"This model has no site '{name}'; {nearest(name, kinds)}")
            records = isinstance(tap, _Recorder) and tap.inner is None
            if kinds[name] == "listened" and not records:
                raise ConfigError(
                    f"The value at '{name}' cannot be replaced, only recorded: the network puts it"
                    " aside and does not read it again. Replace the output of a submodule."
                )

    def listens(self, name: str) -> bool:
        """Whether a tap sits at the site ``name``."""
        return name in self._taps

    def by_position(self, name: str) -> ByPosition | None:
        """The tap at the site ``name`` if it is a ``ByPosition``, else None."""
        tap = self._taps.get(name)
        return tap if isinstance(tap, ByPosition) else None

    def at(self, name: str, value: Any) -> Any:
        """The value with which the forward pass continues after an activation's site.

        Args:
            name: the site.
            value: the activation that the model computed.
        """
        return self._through(name, (value,), lambda value: value)

    def product(self, name: str, x: Any, W: Any, multiply: Callable[[Any, Any], Any]) -> Any:
        """The product with which the forward pass continues after a weight's site.

        Args:
            name: the site.
            x: the input of the product.
            W: the weight.
            multiply: computes the product from (x, W) if no tap replaces it.
        """
        return self._through(name, (x, W), multiply)

    def _through(self, name: str, values: tuple[Any, ...], default: Callable[..., Any]) -> Any:
        tap = self._taps.get(name)
        if tap is None:
            return default(*values)
        return tap.record(default, values) if isinstance(tap, _Recorder) else tap(*values)


def capture(
    apply: Callable[..., Any], sites: Iterable[str]
) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Makes a function that also returns the values at some sites.

    A site that is both captured and tapped gives what the tap returned. Nothing else is computed or
    stored.

    Args:
        apply: a model's forward pass.
        sites: the names of the sites to capture.

    Returns:
        A function ``(params, inputs, *, taps=None, positions=None) -> (outputs, {site: value})``.

    Raises:
        ConfigError: when the function is called, for a site that the model does not have.

    Example:
        >>> captured = capture(model.apply, ["blocks.0.attn.pattern"])  # doctest: +SKIP
        >>> outputs, values = captured(params, inputs)  # doctest: +SKIP
        >>> values["blocks.0.attn.pattern"].shape  # doctest: +SKIP
        (12769, 4, 3, 3)
    """
    names = (sites,) if isinstance(sites, str) else tuple(sites)

    def captured(
        params: Any, inputs: Any, *, taps: Taps | None = None, positions: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        store: dict[str, Any] = {}
        given = dict(taps or {})
        recorders = {name: _Recorder(store, name, given.get(name)) for name in names}
        outputs = apply(params, inputs, taps={**given, **recorders}, positions=positions)
        return outputs, store

    return captured
