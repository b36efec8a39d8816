"""Singular modes of the tables that touch tokens and classes.

A table [residue d] is the sum over i of s_i u_i v_i^T. Each u_i is a function on the residues, so
the Fourier basis says which frequencies a mode consists of. The modes of a checkpoint are also
compared with those of the final model.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics import lapack
from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, TABLES

LEADING = 10
"""Number of leading modes whose span is compared between checkpoints."""


@shared
def _modes(params: Params, context: Context, place: str) -> tuple[Array, Array, Array]:
    """Singular value decomposition of a table.

    Returns:
        u [residue mode], s [mode] in falling order, and v^T [mode d].
    """
    u, s, vt = jnp.linalg.svd(TABLES[place][0](params, context), full_matrices=False)
    return u, s, vt


@shared
def _left_modes(params: Params, context: Context, place: str) -> Float[Array, "residue mode"]:
    """Left singular vectors of a table, in falling order of their singular values; NaN for a table
    of zeros, where they could be any.

    A wide table W has those of the square matrix R^T, where W^T = Q R. Reading them from R takes
    half the time.
    """
    table = TABLES[place][0](params, context)
    return jnp.where((table == 0).all(), jnp.nan, _vectors(table, params, context, place))


def _vectors(
    table: Float[Array, "residue d"], params: Params, context: Context, place: str
) -> Float[Array, "residue mode"]:
    if table.shape[1] <= table.shape[0]:
        return _modes(params, context, place)[0]
    # Never from W W^T: its rounding is relative to the square of the largest singular value, so
    # that in float32 every mode below about 1e-3 of the largest one would be noise.
    return lapack.svd(lapack.triangle(table.T).T)[0]


def _padded(values: Float[Array, " some"], context: Context) -> Float[Array, " mode"]:
    """Values padded to one per residue with NaN, for modes that a narrow table does not have."""
    return jnp.pad(values, (0, context.inputs.classes - len(values)), constant_values=jnp.nan)


def mode_frequency_share(place: str) -> Measure:
    """The largest share of each mode that one frequency has, cosine and sine together.

    max over k of ||F_k u_i||^2, where F_k holds the cosine and sine of frequency k. It is 1 for a
    mode that is a wave, and small for a mode that mixes many frequencies.

    Args:
        place: which table: a key of ``measures.fourier.TABLES``. It needs the role of that table.

    Returns:
        A measure ``mode_frequency_share_{place}`` with dims (mode,); NaN for modes that a narrow
        table does not have, and for a table of zeros. It needs the ground truth residues.
    """
    _, role = TABLES[place]

    def _mode_frequency_share(params: Params, context: Context) -> Float[Array, " mode"]:
        u = _left_modes(params, context, place)
        p = u.shape[0]
        power = jnp.square(by_frequency(jnp.asarray(fourier_basis(p))[1:] @ u, frequencies(p))).sum(
            axis=1
        )
        return _padded(power.max(axis=0), context)

    return Measure(
        f"mode_frequency_share_{place}",
        _mode_frequency_share,
        ("mode",),
        roles=(role,),
        ground_truth=("residues",),
        source=SOURCE,
    )


def key_mode_share(place: str) -> Measure:
    """How much of the leading modes lies along the final model's key frequencies.

    The sum of ||P u_i||^2 / n over the first n modes, where P projects on the cosines and sines
    of the final model's K key frequencies, and n is their number: 2K, or 2K - 1 where p / 2 is a
    key frequency, which has no sine. It is 1 if the leading modes of the table span exactly
    what the key frequencies span, and n / p for random modes.

    Args:
        place: which table: a key of ``measures.fourier.TABLES``. It needs the role of that table,
            and output_map for the key frequencies.

    Returns:
        A measure ``key_mode_share_{place}`` without dims of its own. It needs the ground truth
        residues and the final checkpoint.
    """
    _, role = TABLES[place]

    def _key_mode_share(params: Params, context: Context) -> Scalar:
        u = _left_modes(params, context, place)
        keys: Bool[Array, " frequency"] = context.prepared["final_key_frequencies"]
        p, ranks = u.shape[0], jnp.arange(u.shape[1])
        components = by_frequency(jnp.asarray(fourier_basis(p))[1:] @ u, frequencies(p))
        power = jnp.where(keys[:, None, None], jnp.square(components), 0).sum(axis=(0, 1))
        first = 2 * keys.sum()
        if p % 2 == 0:
            # The frequency p / 2 has a cosine only.
            first = first - keys[-1]
        return jnp.where(ranks < first, power, 0).sum() / first

    return Measure(
        f"key_mode_share_{place}",
        _key_mode_share,
        roles=(role, "output_map"),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        null="other_frequencies",
        options={"keys": "final", "table": "W_L"},
        source=SOURCE,
    )


def final_mode_strength(place: str) -> Measure:
    """Strength of each of the final model's modes by now, so that one mode is one line.

    u_i^T W v_i, where u_i and v_i are the final model's singular vectors. At the end of training
    it is the singular value. Modes of equal strength are known up to a rotation among themselves
    only, which the final model fixes.

    Args:
        place: which table: a key of ``measures.fourier.TABLES``. It needs the role of that table.

    Returns:
        A measure ``final_mode_strength_{place}`` with dims (mode,), in the order of the final
        singular values; NaN for modes that a narrow table does not have. It needs the final
        checkpoint.
    """
    table, role = TABLES[place]

    def _final_mode_strength(params: Params, context: Context) -> Float[Array, " mode"]:
        u, _, vt = _modes(context.reference.final, context, place)
        return _padded(((u.T @ table(params, context)) * vt).sum(axis=1), context)

    return Measure(
        f"final_mode_strength_{place}",
        _final_mode_strength,
        ("mode",),
        roles=(role,),
        uses=frozenset({"final"}),
        null="untrained_pair",
    )


def subspace_angle(place: str, other: Literal["previous", "final"]) -> Measure:
    """Angle between the leading modes' span now and in another checkpoint.

    The root mean square of the principal angles between the two spans of the leading 10 left
    singular vectors. Compared with the snapshot before it says how fast the span turns, compared
    with the final one how far the span is from frozen. Random spans of n dimensions in m stand at
    arccos(sqrt(n / m)) on average (in mean square cosine).

    Args:
        place: which table: a key of ``measures.fourier.TABLES``. It needs the role of that table.
        other: the checkpoint to compare with: the snapshot before, or the final one.

    Returns:
        A measure ``subspace_angle_{place}_{other}`` without dims of its own, in radians; NaN if
        one of the tables is all zeros.
    """
    _, role = TABLES[place]

    def _subspace_angle(params: Params, context: Context) -> Scalar:
        here, there = (
            _left_modes(checkpoint, context, place)[:, :LEADING]
            for checkpoint in (params, getattr(context.reference, other))
        )
        return jnp.sqrt(jnp.square(principal_angles(here, there)).mean())

    return Measure(
        f"subspace_angle_{place}_{other}",
        _subspace_angle,
        roles=(role,),
        uses=frozenset({other}),
        options={"modes": LEADING},
        null="untrained_pair",
        units="radians",
    )


def principal_angles(
    here: Float[Array, "residue mode"], there: Float[Array, "residue mode"]
) -> Float[Array, " mode"]:
    """The principal angles between two spans (Bjorck and Golub 1973).

    Args:
        here: orthonormal columns that span the first space.
        there: as many orthonormal columns that span the second space.

    Returns:
        The angles in radians, in rising order.

    Example:
        >>> principal_angles(jnp.eye(3)[:, :2], jnp.eye(3)[:, 1:]).round(3).tolist()
        [0.0, 1.571...]
    """
    overlap = here.T @ there
    cosines = jnp.linalg.svd(overlap, compute_uv=False)
    # Falling sines belong to rising cosines.
    sines = jnp.linalg.svd(there - here @ overlap, compute_uv=False)[::-1]
    # The cosine of a small angle is 1 up to rounding, so small angles are read from their sines.
    small = jnp.square(cosines) > 0.5
    return jnp.where(small, jnp.arcsin(jnp.clip(sines, 0, 1)), jnp.arccos(jnp.clip(cosines, 0, 1)))
