"""Taps: listening to and replacing what flows through a model, by the name of the site.

A tap is a function at a site. At an activation it is ``value -> value``; at a product with a weight
``(x, W) -> product``. Capturing returns its values, never leaves them in a closure, so that jit,
vmap, map, grad and remat are safe around it.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mi_jax.basics.errors import ConfigError, nearest
from mi_jax.contracts import Site, Tap, Taps


class _Recorder(NamedTuple):
    """A tap that records what the tap inside it, or the model itself, returned."""

    store: dict[str, Any]
    name: str
    inner: Tap | None

    def __call__(self, *values: Any) -> Any:
        """At an activation's site of a model that calls its taps itself."""
        return self.record(lambda value: value, values)

    def record(self, default: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        # Behind a barrier, so that it is computed once for those who look and for what goes on.
        self.store[self.name] = jax.lax.optimization_barrier((self.inner or default)(*values))
        return self.store[self.name]


class ByPosition(NamedTuple):
    """A tap at the site of the embedded tokens that treats each token alone: ``function(rows [token
    d], position) -> rows``.

    What treats tokens alone can be done to a table of them, so a model may keep its fast path under
    it.
    """

    function: Callable[[Any, int], Any]

    def __call__(self, value: Any) -> Any:
        """On values [batch position d]."""
        return jnp.stack([self.function(value[:, s], s) for s in range(value.shape[1])], axis=1)


class Tapped:
    """The taps of one forward pass: ``at`` for activations, ``product`` for products with a weight."""

    def __init__(self, taps: Taps | None, sites: Iterable[Site]):
        self._taps = dict(taps or {})
        known = {site.name for site in sites}
        for name in self._taps:
            if name not in known:
                raise ConfigError(
                    f"there is no site '{name}' in this model; {nearest(name, known)}"
                )

    def listens(self, name: str) -> bool:
        """Whether a tap sits at this site."""
        return name in self._taps

    def by_position(self, name: str) -> ByPosition | None:
        """The tap at this site, if it is of that kind."""
        tap = self._taps.get(name)
        return tap if isinstance(tap, ByPosition) else None

    def at(self, name: str, value: Any) -> Any:
        """The value that goes on from an activation's site."""
        return self._through(name, (value,), lambda value: value)

    def product(self, name: str, x: Any, W: Any, multiply: Callable[[Any, Any], Any]) -> Any:
        """The product that goes on from a weight's site; ``multiply(x, W)`` where no tap replaces
        it.
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
    """``capture(apply, sites)(params, inputs, *, taps=None, positions=None) -> (outputs, {site:
    value})``.

    A site that is both captured and tapped gives what the tap returned. Nothing else is computed or
    kept.

    Example:
        >>> outputs, seen = capture(model.apply, ["blocks.0.attn.pattern"])(params, inputs)  # doctest: +SKIP
        >>> seen["blocks.0.attn.pattern"].shape  # doctest: +SKIP
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
