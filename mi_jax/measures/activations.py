"""What the sites of a model hold for every example at the positions that are read, as vectors: what
probes are fitted on.

A row is an example at a position: those of an example stand one after the other.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError, nearest
from mi_jax.contracts import Context, Model
from mi_jax.measures.evaluation import shared
from mi_jax.models.taps import capture

CONTROL = "probe_control"


def probed_sites(model: Model, *, optional: bool = True) -> tuple[str, ...]:
    """The sites that hold a vector for each example, in the order of the forward pass; a product is
    that of the site after it.

    Args:
        optional: whether those count that are computed only when they are listened to.
    """
    vectors = (site for site in model.sites if site.kind == "activation" and "batch" in site.dims)
    return tuple(site.name for site in vectors if optional or not site.optional)


def check_sites(model: Model, sites: Sequence[str]) -> None:
    """Raises MeasureError for a site that isn't one of ``probed_sites``, naming the nearest."""
    known = probed_sites(model)
    for name in sites:
        if name not in known:
            raise MeasureError(
                f"there is no site '{name}' to probe in this model; {nearest(name, known)}"
            )


def positions_of(context: Context, position: int | None) -> tuple[int, ...]:
    """The position; all that are read by default. Raises MeasureError for one that the input
    doesn't have.
    """
    length = context.inputs.positions
    if position is not None and not 0 <= position < length:
        raise MeasureError(f"position={position}: the input has the positions 0 to {length - 1}")
    return context.read if position is None else (position,)


def all_inputs(context: Context) -> Shaped[Array, "example ..."]:
    """The inputs of all examples, the splits one after the other in sorted order."""
    return jnp.concatenate(
        [jnp.asarray(context.batches[split].inputs) for split in sorted(context.batches)]
    )


@shared
def site_vectors(
    params: Params,
    context: Context,
    sites: tuple[str, ...],
    positions: tuple[int, ...],
    control: bool = False,
) -> Mapping[str, Float[Array, "row _d"]]:
    """By site, what it holds at the positions for all examples, heads and keys side by side; 0
    where a score is masked.

    Args:
        control: of the control task's inputs, which a measure of probes prepared under CONTROL.
    """
    inputs = context.prepared[CONTROL] if control else all_inputs(context)
    _, seen = capture(context.model.apply, sites)(params, inputs, positions=positions)
    return {name: vectors(context, name, positions)[0](seen[name]) for name in sites}


Take = Callable[[Float[Array, "example ..."]], Float[Array, "row d"]]
Put = Callable[[Float[Array, "example ..."], Float[Array, "row d"]], Float[Array, "example ..."]]


def vectors(context: Context, site: str, positions: tuple[int, ...]) -> tuple[Take, Put]:
    """How a site's value becomes rows, and how its value is made of others: ``put(value,
    take(value)) == value``.

    A site that isn't counted by the input's positions is taken whole, for each position.
    """
    (one,) = [one for one in context.model.sites if one.name == site]
    count = len(positions)
    axes = [axis for axis, dim in enumerate(one.dims) if dim in ("position", "query")]

    def there(value: Float[Array, "example ..."]) -> list[int] | None:
        """Where the positions stand along the site's axis of positions."""
        size = value.shape[axes[0]] if axes else 0
        if size == context.inputs.positions:
            return list(positions)
        return list(range(count)) if size == count else None

    def take(value: Float[Array, "example ..."]) -> Float[Array, "row d"]:
        places = there(value)
        rows = (
            jnp.repeat(value, count, axis=0)
            if places is None
            else jnp.moveaxis(value, axes[0], 1)[:, jnp.array(places)]
        )
        # Masked scores are -inf for every example.
        return jnp.where(jnp.isneginf(rows), 0.0, rows).reshape(len(value) * count, -1)

    def put(
        value: Float[Array, "example ..."], changed: Float[Array, "row d"]
    ) -> Float[Array, "example ..."]:
        places = there(value)
        if places is None:
            return changed[::count].reshape(value.shape)
        rows = jnp.moveaxis(value, axes[0], 1)
        held = rows[:, jnp.array(places)]
        kept = jnp.where(jnp.isneginf(held), held, changed.reshape(held.shape))
        return jnp.moveaxis(rows.at[:, jnp.array(places)].set(kept), 1, axes[0])

    return take, put


def by_width(found: Mapping[str, Float[Array, "row _d"]]) -> list[tuple[str, ...]]:
    """The sites in groups of one width, so that one program serves all of a group."""
    widths: dict[int, list[str]] = {}
    for name, value in found.items():
        widths.setdefault(value.shape[1], []).append(name)
    return [tuple(names) for names in widths.values()]


_CONSTANT = 1e-12
"""Variance relative to the mean square below which a feature counts as constant: float32 centres
one to about 1e-14.
"""


def centred(
    X: Float[Array, "example d"], trained: int
) -> tuple[Float[Array, "example d"], Float[Array, " d"]]:
    """X around the mean of its first rows, and that mean; a feature that varies by no more than its
    rounding becomes 0.
    """
    mean = X[:trained].mean(axis=0)
    around = X - mean[None]
    constant = jnp.square(around).mean(axis=0) <= _CONSTANT * jnp.square(X).mean(axis=0)
    return jnp.where(constant[None], 0.0, around), mean


def as_stack(
    found: Mapping[str, Float[Array, "row _d"]], names: Sequence[str]
) -> Float[Array, "site example d"]:
    """The vectors of some sites of one width."""
    return jnp.stack([found[name] for name in names])


def in_order(groups: Sequence[tuple[Sequence[str], jax.Array]], names: Sequence[str]) -> jax.Array:
    """Rows [site ...] of groups of sites, put in the order of the names."""
    held = [name for group, _ in groups for name in group]
    return jnp.concatenate([rows for _, rows in groups])[
        np.array([held.index(name) for name in names])
    ]
