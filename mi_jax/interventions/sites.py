"""Interventions at sites: clamping, ablating or transplanting activations while a network trains
(arXiv 2404.07129).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mi_jax.basics.errors import ConfigError, nearest, require, whole
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.basics.records import frozen
from mi_jax.contracts import Site
from mi_jax.interventions.places import (
    Arrays,
    AtSite,
    CheckContext,
    Forward,
    PrepareContext,
    repeated,
)
from mi_jax.models.taps import capture

Only = tuple[tuple[str, tuple[int, ...]], ...]
"""Pairs of a dim and places along it."""

_PREFIX = "theirs."


@dataclass(frozen=True)
class _Override(AtSite):
    """What the three below share: a site, and which of its places are overridden."""

    site: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.site, str),
            f"{type(self).__name__}: site={self.site!r} must be the name of an activation",
        )

    @property
    def place(self) -> str:
        """The site's name."""
        return self.site

    def found(self, trained: CheckContext, only: Only) -> tuple[Site, tuple[int, ...]]:
        """The site and its shape in training. Raises ConfigError for a site or a place that isn't
        there.
        """
        known = {site.name: site for site in trained.model.sites if site.kind == "activation"}
        told = (
            f"{type(self).__name__}: there is no activation '{self.site}' in this model;"
            f" {nearest(self.site, known)}"
        )
        require(self.site in known, told)
        site, apply = known[self.site], capture(trained.model.apply, [self.site])
        params = nested(
            {
                name: jax.ShapeDtypeStruct(shape, np.float32)
                for name, shape in trained.shapes.items()
            }
        )
        read = trained.task.read
        _, seen = jax.eval_shape(
            lambda p, x: apply(p, x, positions=read), params, trained.batch.inputs
        )
        shape = seen[self.site].shape
        for dim, places in only:
            require(
                dim in site.dims,
                f"only: '{self.site}' has no dim '{dim}'; {nearest(dim, site.dims)}",
            )
            size = shape[site.dims.index(dim)]
            told = (
                f"only: '{self.site}' has {size} places along '{dim}' in training, {list(places)}"
                " are asked for"
            )
            require(len(places) > 0 and all(0 <= place < size for place in places), told)
        return site, shape


def _chosen(only: Only, dims: tuple[str, ...], value: Array) -> Bool[Array, "..."]:
    """Which elements are overridden: those at the chosen places of every dim that is named."""
    mask = np.ones((1,) * value.ndim, bool)
    for dim, places in only:
        axis = dims.index(dim)
        shape = [1] * value.ndim
        shape[axis] = value.shape[axis]
        mask = mask & np.isin(np.arange(value.shape[axis]), places).reshape(shape)
    return jnp.broadcast_to(jnp.asarray(mask), value.shape)


def _pairs(only: Any) -> Only:
    """``{"head": (2,)}`` or pairs, as pairs."""
    items = only.items() if isinstance(only, Mapping) else only
    try:
        return tuple(
            (str(dim), tuple(whole(f"only: {dim}", place) for place in places))
            for dim, places in items
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"only={only!r} must be places by dim, such as {{'head': (2,)}}"
        ) from error


@dataclass(frozen=True)
class Clamp(_Override):
    """A site's activation is this value, and no gradient passes through what is clamped.

    Example:
        >>> Clamp("blocks.0.attn.pattern", 0.5, only={"head": (2,)}, start=400).only
        (('head', (2,)),)

    Attributes:
        site: the name of an activation (see docs/sites.md).
        value: a number, or nested tuples of the site's last dims, the same for all examples.
        only: places by dim that are clamped, all by default. In the last layer, positions and
            queries count those that are read.
    """

    value: float | int | tuple[Any, ...]
    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))
        object.__setattr__(self, "value", frozen(self.value))
        try:
            finite = np.isfinite(np.asarray(self.value, np.float32)).all()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Clamp: value={self.value!r} must be a number, or nested tuples of them of equal"
                " length"
            ) from error
        if isinstance(self.value, int):
            object.__setattr__(self, "value", float(self.value))
        require(bool(finite), f"Clamp: value={self.value!r} must be finite")

    def compile_key(self) -> "Clamp":
        """Itself without range and values."""
        return replace(self, value=0.0, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        _, shape = self.found(trained, _pairs(self.only))
        own = np.shape(self.value)
        fits = len(own) <= len(shape) and all(
            n in (1, size) for n, size in zip(own[::-1], shape[::-1], strict=False)
        )
        require(
            fits,
            f"Clamp: a value of shape {own} doesn't fit '{self.site}', whose shape in training is"
            f" {shape}",
        )

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """See ``Intervention``."""
        return {"value": repeated(jnp.asarray(self.value, jnp.float32), moment.seeds)}

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """See ``AtSite``."""
        clamp = arrays["value"]
        clamp = clamp.reshape((1,) * (value.ndim - clamp.ndim) + clamp.shape).astype(value.dtype)
        return jnp.where(
            _chosen(_pairs(self.only), forward.dims(self.site), value),
            jnp.broadcast_to(clamp, value.shape),
            value,
        )


@dataclass(frozen=True)
class Ablate(_Override):
    """A site's activation is 0, and no gradient passes through what is ablated. ``only``: as for
    ``Clamp``.
    """

    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))

    def compile_key(self) -> "Ablate":
        """Itself without range and values."""
        return replace(self, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        self.found(trained, _pairs(self.only))

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """See ``AtSite``."""
        return jnp.where(
            _chosen(_pairs(self.only), forward.dims(self.site), value), jnp.zeros_like(value), value
        )


@dataclass(frozen=True)
class Transplant(_Override):
    """A site's activation is the one that another checkpoint of the same seed has on the same
    batch; no gradient passes it.

    Attributes:
        site: the name of an activation.
        run: path of the run that the checkpoint is of; None for the one that was forked. step: its
            step.
        only: as for ``Clamp``.
    """

    run: str | None
    step: int
    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))
        hold_checkpoint(self)

    def compile_key(self) -> "Transplant":
        """Itself without range and values."""
        return replace(self, run=None, step=0, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        self.found(trained, _pairs(self.only))
        fitting(
            f"Transplant: {self.run or 'the parent'} at step {self.step}",
            trained,
            self.run,
            self.step,
        )

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """See ``Intervention``."""
        return {
            f"{_PREFIX}{name}": value
            for name, value in dotted(moment.load_params(self.run, self.step)).items()
        }

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """See ``AtSite``."""
        theirs = nested({name.removeprefix(_PREFIX): array for name, array in arrays.items()})
        other = jax.lax.stop_gradient(forward.activation(theirs, self.site))
        return jnp.where(_chosen(_pairs(self.only), forward.dims(self.site), value), other, value)


def hold_checkpoint(intervention: Any) -> None:
    """Checks ``run`` and ``step`` of an intervention that names another checkpoint, and makes the
    path absolute.
    """
    run, told = intervention.run, type(intervention).__name__
    require(
        run is None or isinstance(run, (str, os.PathLike)),
        f"{told}: run={run!r} must be a run's path, or None",
    )
    object.__setattr__(intervention, "run", None if run is None else str(Path(run).resolve()))
    object.__setattr__(intervention, "step", whole(f"{told}: step", intervention.step))
    require(intervention.step >= 0, f"{told}: step={intervention.step} must be at least 0")


def fitting(
    told: str,
    trained: CheckContext,
    run: str | None,
    step: int,
    names: frozenset[str] | None = None,
) -> None:
    """Raises ConfigError where another run's parameters have other shapes, RunError where it can't
    be read.
    """
    theirs = {
        name: tuple(value.shape[1:])
        for name, value in dotted(trained.load_params(run, step)).items()
    }
    for name in sorted(trained.shapes if names is None else names):
        own = trained.shapes[name]
        require(
            theirs.get(name) == own,
            f"{told}: {name} has the shape {theirs.get(name, 'of nothing')}, here it is {own}",
        )
