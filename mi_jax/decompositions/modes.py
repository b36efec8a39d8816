"""The singular modes of the tables that touch tokens and classes: what of them is Fourier, how far
they are from the final ones.

A table [residue d] is sum_i s_i u_i v_i^T; u_i is a function on the residues, so that the Fourier
basis says what a mode is of.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, TABLES

LEADING = 10
"""Modes whose span is compared between checkpoints."""


@shared
def _modes(params: Params, context: Context, place: str) -> tuple[Array, Array, Array]:
    """u [residue mode], s [mode] falling, v^T [mode d] of a table."""
    u, s, vt = jnp.linalg.svd(TABLES[place][0](params, context), full_matrices=False)
    return u, s, vt


@shared
def _left(params: Params, context: Context, place: str) -> Float[Array, "residue mode"]:
    """The left singular vectors of a table, in the order of falling values; of a wide one through W
    W^T, a fifth of the time.
    """
    table = TABLES[place][0](params, context)
    if table.shape[1] <= table.shape[0]:
        return _modes(params, context, place)[0]
    # Rounding in W W^T is relative to the largest value squared: the leading modes, which count
    # here, don't feel it.
    return jnp.linalg.eigh(table @ table.T)[1][:, ::-1]


def _padded(values: Float[Array, " held"], context: Context) -> Float[Array, " mode"]:
    """As many as there are residues, like ``singular_values_embedding``; NaN for modes that a
    narrow table doesn't have.
    """
    return jnp.pad(values, (0, context.inputs.classes - len(values)), constant_values=jnp.nan)


def mode_frequency_share(place: str) -> Measure:
    """max over k of ||F_k u_i||^2: how much of each mode is one frequency, cosine and sine. 1 for a
    mode that is a wave.
    """
    _, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " mode"]:
        u = _left(params, context, place)
        p = u.shape[0]
        power = jnp.square(by_frequency(jnp.asarray(fourier_basis(p))[1:] @ u, frequencies(p))).sum(
            axis=1
        )
        return _padded(power.max(axis=0), context)

    return Measure(
        f"mode_frequency_share_{place}",
        function,
        ("mode",),
        roles=(role,),
        ground_truth=("residues",),
        source=SOURCE,
    )


def key_mode_share(place: str) -> Measure:
    """||P u||^2 / 2K summed over the first 2K modes, P on the cosines and sines of the final
    model's K key frequencies.

    1 where the surviving modes of the table span just what the key frequencies do; 2K / p for
    random modes.
    """
    _, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        u = _left(params, context, place)
        keys: Bool[Array, " frequency"] = context.prepared["final_key_frequencies"]
        p, places = u.shape[0], jnp.arange(u.shape[1])
        held = by_frequency(jnp.asarray(fourier_basis(p))[1:] @ u, frequencies(p))
        power = jnp.where(keys[:, None, None], jnp.square(held), 0).sum(axis=(0, 1))
        first = 2 * keys.sum()
        return jnp.where(places < first, power, 0).sum() / first

    return Measure(
        f"key_mode_share_{place}",
        function,
        roles=(role, "output_map"),
        ground_truth=("residues",),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        null="other_frequencies",
        options={"keys": "final", "table": "W_L"},
        source=SOURCE,
    )


def final_mode_strength(place: str) -> Measure:
    """u_i^T W v_i, u_i and v_i the final model's modes: how strong each surviving mode is by now,
    one mode one line.

    At the end it is the singular value. Modes of equal strength are known up to a rotation among
    them, at the final model alone.
    """
    table, role = TABLES[place]

    def function(params: Params, context: Context) -> Float[Array, " mode"]:
        u, _, vt = _modes(context.reference.final, context, place)
        return _padded(((u.T @ table(params, context)) * vt).sum(axis=1), context)

    return Measure(
        f"final_mode_strength_{place}",
        function,
        ("mode",),
        roles=(role,),
        uses=frozenset({"final"}),
        null="untrained_pair",
    )


def subspace_angle(place: str, other: Literal["previous", "final"]) -> Measure:
    """Root mean square of the principal angles, in radians, between the leading 10 modes' span of
    residues now and in another
    checkpoint: the snapshot before (how fast it turns), or the final one (how far it is from
        frozen).

    Random spans of n dimensions in m stand at arccos(sqrt(n / m)) on average (in mean square
    cosine).
    """
    _, role = TABLES[place]

    def function(params: Params, context: Context) -> Scalar:
        here, there = (
            _left(one, context, place)[:, :LEADING]
            for one in (params, getattr(context.reference, other))
        )
        return jnp.sqrt(jnp.square(principal_angles(here, there)).mean())

    return Measure(
        f"subspace_angle_{place}_{other}",
        function,
        roles=(role,),
        uses=frozenset({other}),
        options={"modes": LEADING},
        null="untrained_pair",
        units="radians",
    )


def principal_angles(
    here: Float[Array, "residue mode"], there: Float[Array, "residue mode"]
) -> Float[Array, " mode"]:
    """The angles between two spans with orthonormal columns, rising; by sines where they are small,
    which cosines lose.

    (Bjorck and Golub 1973)
    """
    overlap = here.T @ there
    cosines = jnp.linalg.svd(overlap, compute_uv=False)
    # Falling sines belong to rising cosines.
    sines = jnp.linalg.svd(there - here @ overlap, compute_uv=False)[::-1]
    small = jnp.square(cosines) > 0.5
    return jnp.where(small, jnp.arcsin(jnp.clip(sines, 0, 1)), jnp.arccos(jnp.clip(cosines, 0, 1)))
