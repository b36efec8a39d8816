"""Directions along the residues: of chosen frequencies, of key ones, of as many others, and random
ones that remove as much.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import RunError
from mi_jax.basics.fourier import fourier_basis, key_rule
from mi_jax.contracts import Model

_CONTROL, _RANDOM = 1, 2
"""Set the draws of the two rules apart."""


def rows_of(
    frequencies: tuple[int, ...], p: int, length: int
) -> Float[np.ndarray, "direction axis"]:
    """The unit vectors cos and sin of each frequency over p residues, with zeros for special tokens
    up to ``length``.
    """
    basis = fourier_basis(p)
    chosen = [row for k in sorted(set(frequencies)) for row in (2 * k - 1, 2 * k) if row < p]
    return np.pad(basis[chosen], ((0, 0), (0, length - p)))


def key_frequencies(params: Params, model: Model, p: int, table: str) -> tuple[int, ...]:
    """Those whose cosine or sine component of the table exceeds a quarter of the largest one (arXiv
    2301.05217).
    """
    params = jax.tree.map(jnp.asarray, params)
    if table == "embedding":
        residues = np.concatenate(
            [np.asarray(embedding(params))[:p] for embedding in model.roles.embedding], axis=1
        )
    else:
        assert model.roles.output_map is not None
        residues = np.asarray(model.roles.output_map(params)).T
    return tuple(int(k) + 1 for k in np.flatnonzero(key_rule(jnp.asarray(residues))))


def control(keys: tuple[int, ...], p: int, seed: int) -> tuple[int, ...]:
    """As many frequencies that are none of these, drawn by seed. Raises RunError where there are
    too few.
    """
    others = [k for k in range(1, p // 2 + 1) if k not in keys]
    if len(others) < len(keys):
        raise RunError(
            f"{len(keys)} of {p // 2} frequencies are key: there aren't as many others; name fewer"
        )
    drawn = np.random.default_rng([_CONTROL, seed]).choice(others, len(keys), replace=False)
    return tuple(sorted(int(k) for k in drawn))


def random_rows(
    key_rows: Float[np.ndarray, "direction axis"],
    W: Float[np.ndarray, "axis ..."],
    p: int,
    seed: int,
) -> Float[np.ndarray, "drawn axis"]:
    """Random directions over the residues, orthogonal to the constant, whose removal takes as much
    off the norm of W.

    Directions q_1, q_2, ... are drawn until sum_i ||q_i W||^2 reaches ||key_rows W||^2 =: t; of the
    last one the share f with f^2 ||q W||^2 = t - the sum before is removed: its row is sqrt(f) q.
    """
    flat = W.reshape(len(W), -1).astype(np.float64)
    target = np.square(key_rows.astype(np.float64) @ flat).sum()
    draws = np.random.default_rng([_RANDOM, seed]).normal(size=(p, p - 1))
    q = np.linalg.qr(draws - draws.mean(axis=0))[0].T
    removed = np.square(q @ flat[:p]).sum(axis=1)
    before = np.cumsum(removed) - removed
    last = int(np.flatnonzero(before < target).max(initial=-1))
    if last < 0:
        return np.zeros((0, len(W)), np.float32)
    f = min(1.0, np.sqrt((target - before[last]) / removed[last]))
    rows = np.pad(
        np.concatenate([q[:last], np.sqrt(f) * q[last : last + 1]]), ((0, 0), (0, len(W) - p))
    )
    return rows.astype(np.float32)
