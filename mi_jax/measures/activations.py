"""Activations at a model's sites as vectors: the data that probes are fitted on.

A row is an example at a read position. The rows of one example stand one after another.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError, nearest
from mi_jax.contracts import Context, Model
from mi_jax.measures.evaluation import all_inputs, shared
from mi_jax.models.taps import capture

CONTROL = "probe_control"
"""Name under which the control task's inputs are prepared."""


def probed_sites(model: Model, *, optional: bool = True) -> tuple[str, ...]:
    """Sites that hold a vector for each example, in the order of the forward pass.

    Sites of products are left out: their value is that of the site after them.

    Args:
        model: the model.
        optional: whether to include sites that are computed only when a tap listens to them.
    """
    sites = (site for site in model.sites if site.kind == "activation" and "batch" in site.dims)
    return tuple(site.name for site in sites if optional or not site.optional)


def check_sites(model: Model, sites: Sequence[str]) -> None:
    """Checks that all sites can be probed.

    Raises:
        MeasureError: if one is not among ``probed_sites``; names the nearest.
    """
    known = probed_sites(model)
    for name in sites:
        if name not in known:
            raise MeasureError(f"This model has no site '{name}' to probe; {nearest(name, known)}")


def positions_of(context: Context, position: int | None) -> tuple[int, ...]:
    """The positions at which activations are taken.

    They are ``position`` alone, or all read positions if it is None.

    Raises:
        MeasureError: if the input has no such position.
    """
    length = context.inputs.positions
    if position is not None and not 0 <= position < length:
        raise MeasureError(
            f"position={position} is out of range. The input has the positions 0 to {length - 1}."
        )
    return context.read if position is None else (position,)


@shared
def site_vectors(
    params: Params,
    context: Context,
    sites: tuple[str, ...],
    positions: tuple[int, ...],
    control: bool = False,
) -> Mapping[str, Float[Array, "row _d"]]:
    """The vectors at each site for all examples, heads and keys side by side.

    Masked attention scores become 0.

    Args:
        params: of the checkpoint.
        context: of the reading.
        sites: names of the sites.
        positions: where activations are taken.
        control: whether to take the inputs of the control task, which the measures of probes
            prepare under the name CONTROL.

    Returns:
        The vectors by site, one row per example and position; the width depends on the site.
    """
    inputs = context.prepared[CONTROL] if control else all_inputs(context)
    _, seen = capture(context.model.apply, sites)(params, inputs, positions=positions)
    return {name: row_functions(context, name, positions)[0](seen[name]) for name in sites}


Take = Callable[[Float[Array, "example ..."]], Float[Array, "row d"]]
"""A site's value -> its vectors, one row per example and position."""

Put = Callable[[Float[Array, "example ..."], Float[Array, "row d"]], Float[Array, "example ..."]]
"""(a site's value, changed vectors) -> the site's value with these vectors."""


def row_functions(context: Context, site: str, positions: tuple[int, ...]) -> tuple[Take, Put]:
    """Two functions that turn a site's value into vectors, and vectors into the site's value.

    A vector is a row [d] for an example at a position.

    They invert each other: ``put(value, take(value)) == value``. A site without an axis of
    positions is taken whole, once for each position.

    Args:
        context: of the reading.
        site: name of the site.
        positions: where activations are taken.

    Returns:
        ``take`` (value -> vectors) and ``put`` ((value, changed vectors) -> value).
    """
    (dims,) = [each.dims for each in context.model.sites if each.name == site]
    count = len(positions)
    axes = [axis for axis, dim in enumerate(dims) if dim in ("position", "query")]

    def indices(value: Float[Array, "example ..."]) -> list[int] | None:
        """Indices of the positions along the site's axis of positions; None without such an axis.

        From the last layer's queries on, a site may hold the read positions only.
        """
        size = value.shape[axes[0]] if axes else 0
        if size == context.inputs.positions:
            return list(positions)
        return list(range(count)) if size == count else None

    def take(value: Float[Array, "example ..."]) -> Float[Array, "row d"]:
        at = indices(value)
        rows = (
            jnp.repeat(value, count, axis=0)
            if at is None
            else jnp.moveaxis(value, axes[0], 1)[:, jnp.array(at)]
        )
        # Masked scores are -inf for every example, which would make every probe NaN.
        return jnp.where(jnp.isneginf(rows), 0.0, rows).reshape(len(value) * count, -1)

    def put(
        value: Float[Array, "example ..."], changed: Float[Array, "row d"]
    ) -> Float[Array, "example ..."]:
        at = indices(value)
        if at is None:
            return changed[::count].reshape(value.shape)
        rows = jnp.moveaxis(value, axes[0], 1)
        before = rows[:, jnp.array(at)]
        # Masked scores stay masked, whatever the edit.
        after = jnp.where(jnp.isneginf(before), before, changed.reshape(before.shape))
        return jnp.moveaxis(rows.at[:, jnp.array(at)].set(after), 1, axes[0])

    return take, put


_CONSTANT = 1e-12
"""Variance relative to the mean square below which a feature counts as constant.

Centring in float32 leaves a constant feature about 1e-14.
"""


def centred_rows(
    X: Float[Array, "example d"], trained: int
) -> tuple[Float[Array, "example d"], Float[Array, " d"]]:
    """Vectors around the mean of the first ones; a feature that varies by rounding alone becomes 0.

    Args:
        X: the vectors, one per row.
        trained: number of first vectors that the mean is taken of.

    Returns:
        The centred vectors, and the mean.
    """
    mean = X[:trained].mean(axis=0)
    around = X - mean[None]
    constant = jnp.square(around).mean(axis=0) <= _CONSTANT * jnp.square(X).mean(axis=0)
    return jnp.where(constant[None], 0.0, around), mean


def map_sites(
    read: Callable[..., Array],
    sites: Sequence[str],
    *vectors: Mapping[str, Float[Array, "row _d"]],
) -> Array:
    """``read`` of each site's vectors, stacked in the order of the sites.

    Sites of one width are read by one compiled loop, so that there are as many programs as widths.

    Args:
        read: a function of one array [row d] per mapping in ``vectors``.
        sites: names of the sites.
        vectors: vectors by site; all mappings have equal widths.

    Returns:
        The results along a new first axis [site ...].
    """
    groups: dict[int, list[str]] = {}
    for name, rows in vectors[0].items():
        groups.setdefault(rows.shape[1], []).append(name)
    read_names = [name for names in groups.values() for name in names]
    results = jnp.concatenate(
        [
            jax.lax.map(
                lambda each: read(*each),
                tuple(jnp.stack([by_site[name] for name in names]) for by_site in vectors),
            )
            for names in groups.values()
        ]
    )
    return results[np.array([read_names.index(name) for name in sites])]
