"""What the sites of a model hold for every example at one position, as vectors: what probes are fitted on."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mi_jax.arrays import Params
from mi_jax.contracts import Context, Model, Site
from mi_jax.errors import MeasureError, nearest
from mi_jax.measures.evaluation import shared
from mi_jax.models.taps import capture

CONTROL = "probe_control"


def probed_sites(model: Model) -> tuple[str, ...]:
    """The sites that hold a vector for each example, in the order of the forward pass; a product is that of the site after it."""
    return tuple(site.name for site in model.sites if site.kind == "activation" and "batch" in site.dims)


def check_sites(model: Model, sites: Sequence[str]) -> None:
    """Raises MeasureError for a site that isn't one of ``probed_sites``, naming the nearest."""
    known = probed_sites(model)
    for name in sites:
        if name not in known:
            raise MeasureError(f"there is no site '{name}' to probe in this model; {nearest(name, known)}")


def position_of(context: Context, position: int | None) -> int:
    """The position itself; the last one that is read by default. Raises MeasureError for one that the input doesn't have."""
    chosen, length = context.read[-1] if position is None else position, context.inputs.positions
    if not 0 <= chosen < length:
        raise MeasureError(f"position={position}: the input has the positions 0 to {length - 1}")
    return chosen


def all_inputs(context: Context) -> Shaped[Array, "example ..."]:
    """The inputs of all examples, the splits one after the other in sorted order."""
    return jnp.concatenate([jnp.asarray(context.batches[split].inputs) for split in sorted(context.batches)])


@shared
def site_vectors(
    params: Params, context: Context, sites: tuple[str, ...], position: int, control: bool = False
) -> Mapping[str, Float[Array, "example _d"]]:
    """By site, what it holds at the position for all examples, heads and keys side by side; 0 where a score is masked.

    Args:
        control: of the control task's inputs, which a measure of probes prepared under CONTROL.
    """
    inputs = context.prepared[CONTROL] if control else all_inputs(context)
    _, seen = capture(context.model.apply, sites)(params, inputs, positions=(position,))
    return {name: vectors(context, name, position)[0](seen[name]) for name in sites}


Take = Callable[[Float[Array, "example ..."]], Float[Array, "example d"]]
Put = Callable[[Float[Array, "example ..."], Float[Array, "example d"]], Float[Array, "example ..."]]


def vectors(context: Context, site: str, position: int) -> tuple[Take, Put]:
    """How a site's value becomes vectors, and how its value is made of others: ``put(value, take(value)) == value``."""
    (one,) = [one for one in context.model.sites if one.name == site]

    def take(value: Float[Array, "example ..."]) -> Float[Array, "example d"]:
        rows = _row(value, one, context, position)
        # Masked scores are -inf for every example.
        return jnp.where(jnp.isneginf(rows), 0.0, rows).reshape(len(rows), -1)

    def put(value: Float[Array, "example ..."], changed: Float[Array, "example d"]) -> Float[Array, "example ..."]:
        rows = _row(value, one, context, position)
        kept = jnp.where(jnp.isneginf(rows), rows, changed.reshape(rows.shape))
        place = _place(value.shape, one, context, position)
        return kept if place is None else value.at[place].set(kept)

    return take, put


def _place(shape: tuple[int, ...], site: Site, context: Context, position: int) -> tuple[slice | int, ...] | None:
    """Where the position's row stands; None where the site isn't counted by the input's positions: all of it is taken."""
    axes = [axis for axis, dim in enumerate(site.dims) if dim in ("position", "query")]
    if not axes:
        return None
    size = shape[axes[0]]
    if size not in (1, context.inputs.positions):
        return None
    return (*[slice(None)] * axes[0], 0 if size == 1 else position)


def _row(value: Float[Array, "example ..."], site: Site, context: Context, position: int) -> Float[Array, "example ..."]:
    place = _place(value.shape, site, context, position)
    return value if place is None else value[place]


def by_width(found: Mapping[str, Float[Array, "example _d"]]) -> list[tuple[str, ...]]:
    """The sites in groups of one width, so that one program serves all of a group."""
    widths: dict[int, list[str]] = {}
    for name, value in found.items():
        widths.setdefault(value.shape[1], []).append(name)
    return [tuple(names) for names in widths.values()]


_CONSTANT = 1e-12
"""Variance relative to the mean square below which a feature counts as constant: float32 centres one to about 1e-14."""


def centred(X: Float[Array, "example d"], trained: int) -> tuple[Float[Array, "example d"], Float[Array, " d"]]:
    """X around the mean of its first rows, and that mean; a feature that varies by no more than its rounding becomes 0."""
    mean = X[:trained].mean(axis=0)
    around = X - mean[None]
    constant = jnp.square(around).mean(axis=0) <= _CONSTANT * jnp.square(X).mean(axis=0)
    return jnp.where(constant[None], 0.0, around), mean


def as_stack(found: Mapping[str, Float[Array, "example _d"]], names: Sequence[str]) -> Float[Array, "site example d"]:
    """The vectors of some sites of one width."""
    return jnp.stack([found[name] for name in names])


def in_order(groups: Sequence[tuple[Sequence[str], jax.Array]], names: Sequence[str]) -> jax.Array:
    """Rows [site ...] of groups of sites, put in the order of the names."""
    held = [name for group, _ in groups for name in group]
    return jnp.concatenate([rows for _, rows in groups])[np.array([held.index(name) for name in names])]
