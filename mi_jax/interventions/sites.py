"""Interventions at sites: clamp, ablate or transplant activations while a network trains
(arXiv 2404.07129).
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
    Intervention,
    PrepareContext,
    repeated,
    value_field,
)
from mi_jax.models.taps import capture

Only = tuple[tuple[str, tuple[int, ...]], ...]
"""Pairs of a dimension and indices along it. An element is chosen where every pair holds its index.
"""

_PREFIX = "theirs."
"""Stands before the names of the other checkpoint's parameters in stored arrays."""


@dataclass(frozen=True)
class _Override(AtSite):
    """Base of the interventions that override the value at a site.

    Attributes:
        site: the name of an activation.
    """

    site: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.site, str),
            f"{type(self).__name__}: site={self.site!r} must be the name of an activation.",
        )

    @property
    def place(self) -> str:
        """The name of the site."""
        return self.site

    def overwrites(self, earlier: Intervention, names: Collection[str]) -> bool:
        """Whether every element that an earlier override of this site set is set again."""
        if not isinstance(earlier, _Override) or earlier.site != self.site:
            return False
        ours, theirs = (_pairs(getattr(override, "only", ())) for override in (self, earlier))
        return all(
            any(theirs_dim == dim and set(chosen) <= set(indices) for theirs_dim, chosen in theirs)
            for dim, indices in ours
        )

    def check_site(self, context: CheckContext, only: Only) -> tuple[int, ...]:
        """The shape of the site's value in training.

        Args:
            context: the run.
            only: the indices that are overridden.

        Raises:
            ConfigError: for an unknown site, dimension or index.
        """
        site = self._site(context)
        shape = self._shape(context)
        for dim, indices in only:
            if dim not in site.dims:
                raise ConfigError(
                    f"only: '{self.site}' has no dim '{dim}'; {nearest(dim, site.dims)}"
                )
            size = shape[site.dims.index(dim)]
            if not indices or not all(0 <= index < size for index in indices):
                raise ConfigError(
                    f"only: '{self.site}' has {size} places along '{dim}' in training. You asked"
                    f" for {list(indices)}. Choose from 0 to {size - 1}."
                )
        return shape

    def _site(self, context: CheckContext) -> Site:
        activations = {site.name: site for site in context.model.sites if site.kind == "activation"}
        if any(site.name == self.site and site.kind == "listened" for site in context.model.sites):
            raise ConfigError(
                f"{type(self).__name__}: the value at '{self.site}' can be recorded, but not"
                f" replaced. Choose one of {', '.join(activations)}."
            )
        if self.site not in activations:
            raise ConfigError(
                f"{type(self).__name__}: there is no activation '{self.site}' in this model;"
                f" {nearest(self.site, activations)}"
            )
        return activations[self.site]

    def _shape(self, context: CheckContext) -> tuple[int, ...]:
        apply, positions = capture(context.model.apply, [self.site]), context.task.read
        shapes = {
            name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in context.shapes.items()
        }
        _, captured = jax.eval_shape(
            lambda params, inputs: apply(params, inputs, positions=positions),
            nested(shapes),
            context.batch.inputs,
        )
        return captured[self.site].shape


def _overridden(only: Only, dims: tuple[str, ...], value: Array) -> Bool[Array, "..."]:
    """Mask of the overridden elements: the chosen indices of each dimension in ``only``."""
    mask = np.ones((1,) * value.ndim, bool)
    for dim, indices in only:
        axis = dims.index(dim)
        shape = [1] * value.ndim
        shape[axis] = value.shape[axis]
        mask = mask & np.isin(np.arange(value.shape[axis]), indices).reshape(shape)
    return jnp.broadcast_to(jnp.asarray(mask), value.shape)


def _pairs(only: Any) -> Only:
    """The indices by dimension as pairs, given a mapping such as ``{"head": (2,)}`` or pairs."""
    items = only.items() if isinstance(only, Mapping) else only
    try:
        return tuple(
            (str(dim), tuple(whole(f"only: {dim}", index) for index in indices))
            for dim, indices in items
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"only={only!r} must be indices by dimension, such as {{'head': (2,)}}."
        ) from error


@dataclass(frozen=True)
class Clamp(_Override):
    """A site's activation is set to a value. No gradient passes through the clamped elements.

    Example:
        >>> Clamp("blocks.0.attn.pattern", 0.5, only={"head": (2,)}, start=400).only
        (('head', (2,)),)

    Attributes:
        site: the name of an activation (see docs/sites.md).
        value: a number, or nested tuples with the shape of the site's last dimensions, the same for
            all examples.
        only: indices by dimension of the elements that are clamped, such as ``{"head": (2,)}``; all
            elements by default. In the last layer, indices of positions and queries count the
            positions that the task reads.
    """

    value: float | int | tuple[Any, ...] = value_field(neutral=0.0)
    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))
        object.__setattr__(self, "value", frozen(self.value))
        try:
            finite = np.isfinite(np.asarray(self.value, np.float32)).all()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Clamp: value={self.value!r} must be a number, or nested tuples of numbers of"
                " equal length."
            ) from error
        if isinstance(self.value, int):
            object.__setattr__(self, "value", float(self.value))
        require(bool(finite), f"Clamp: value={self.value!r} must be finite.")

    def check(self, context: CheckContext) -> None:
        """Check that the site exists and that the value fits it."""
        shape = self.check_site(context, _pairs(self.only))
        given = np.shape(self.value)
        fits = len(given) <= len(shape) and all(
            n in (1, size) for n, size in zip(given[::-1], shape[::-1], strict=False)
        )
        if not fits:
            raise ConfigError(
                f"Clamp: a value of shape {given} does not fit '{self.site}', whose shape in"
                f" training is {shape}. Give a number, or the shape of the last dimensions."
            )

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """The value, repeated for every seed."""
        return {"value": repeated(jnp.asarray(self.value, jnp.float32), context.seeds)}

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """The site's value with the chosen elements clamped."""
        clamp = arrays["value"]
        clamp = clamp.reshape((1,) * (value.ndim - clamp.ndim) + clamp.shape).astype(value.dtype)
        return jnp.where(
            _overridden(_pairs(self.only), forward.dims(self.site), value),
            jnp.broadcast_to(clamp, value.shape),
            value,
        )


@dataclass(frozen=True)
class Ablate(_Override):
    """A site's activation is set to 0. No gradient passes through the ablated elements.

    Attributes:
        site: the name of an activation (see docs/sites.md).
        only: indices by dimension of the elements that are ablated, as for ``Clamp``; all elements
            by default.
    """

    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))

    def check(self, context: CheckContext) -> None:
        """Check that the site and the indices exist."""
        self.check_site(context, _pairs(self.only))

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """The site's value with the chosen elements set to 0."""
        mask = _overridden(_pairs(self.only), forward.dims(self.site), value)
        return jnp.where(mask, jnp.zeros_like(value), value)


@dataclass(frozen=True)
class Transplant(_Override):
    """A site's activation is replaced by the activation of another checkpoint of the same seed on
    the same batch. No gradient passes through the replaced elements.

    Attributes:
        site: the name of an activation (see docs/sites.md).
        run: path of the run that the checkpoint belongs to; None: the run that was forked.
        step: step of the checkpoint.
        only: indices by dimension of the elements that are replaced, as for ``Clamp``; all elements
            by default.
    """

    run: str | None = value_field(neutral=None)
    step: int = value_field(neutral=0)
    only: Only | Mapping[str, tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "only", _pairs(self.only))
        normalize_checkpoint(self)

    def check(self, context: CheckContext) -> None:
        """Check that the site exists and that the other checkpoint has this model's parameters."""
        self.check_site(context, _pairs(self.only))
        label = f"Transplant: {self.run or 'the parent'} at step {self.step}"
        check_same_shapes(label, context, self.run, self.step)

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """All parameters of the other checkpoint."""
        other = dotted(context.load_params(self.run, self.step))
        return {f"{_PREFIX}{name}": value for name, value in other.items()}

    def value_at(self, value: Array, arrays: Arrays, forward: Forward) -> Array:
        """The site's value with the chosen elements of the other checkpoint."""
        params = nested({name.removeprefix(_PREFIX): array for name, array in arrays.items()})
        other = jax.lax.stop_gradient(forward.activation(params, self.site))
        mask = _overridden(_pairs(self.only), forward.dims(self.site), value)
        return jnp.where(mask, other, value)


def normalize_checkpoint(intervention: Any) -> None:
    """Check ``run`` and ``step`` of an intervention that names another checkpoint, and make the
    path absolute.
    """
    run, name = intervention.run, type(intervention).__name__
    require(
        run is None or isinstance(run, (str, os.PathLike)),
        f"{name}: run={run!r} must be the path of a run, or None.",
    )
    object.__setattr__(intervention, "run", None if run is None else str(Path(run).resolve()))
    object.__setattr__(intervention, "step", whole(f"{name}: step", intervention.step))
    require(intervention.step >= 0, f"{name}: step={intervention.step} must be at least 0.")


def check_same_shapes(
    label: str,
    context: CheckContext,
    run: str | None,
    step: int,
    names: frozenset[str] | None = None,
) -> None:
    """Check that a checkpoint's parameters have the shapes of this run's.

    Args:
        label: names the intervention and the checkpoint in errors.
        context: this run.
        run: path of the other run; None: the run that was forked.
        step: step of the checkpoint.
        names: the dotted names that are compared; all of this run's by default.

    Raises:
        ConfigError: if a parameter is missing or has another shape.
        RunError: if the other run cannot be read.
    """
    theirs = {
        name: tuple(value.shape[1:])
        for name, value in dotted(context.load_params(run, step)).items()
    }
    for name in sorted(context.shapes if names is None else names):
        ours = context.shapes[name]
        if name not in theirs:
            raise ConfigError(f"{label}: there is no parameter {name}. Choose a run of this model.")
        if theirs[name] != ours:
            raise ConfigError(
                f"{label}: {name} has the shape {theirs[name]}, here it is {ours}. Choose a run of"
                " this model."
            )
