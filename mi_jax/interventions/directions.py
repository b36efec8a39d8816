"""Directions along the residues: those of chosen or key frequencies, and the controls that they are
compared with.
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
"""Seed words that give the two rules independent draws."""


def frequency_rows(
    frequencies: tuple[int, ...], p: int, length: int
) -> Float[np.ndarray, "direction axis"]:
    """The unit vectors cos and sin of each frequency over the residues.

    Args:
        frequencies: from 1 to p // 2; duplicates count once.
        p: the number of residues.
        length: the number of tokens; special tokens beyond p have zeros.
    """
    basis = fourier_basis(p)
    chosen = [row for k in sorted(set(frequencies)) for row in (2 * k - 1, 2 * k) if row < p]
    return np.pad(basis[chosen], ((0, 0), (0, length - p)))


def key_frequencies(params: Params, model: Model, p: int, table: str) -> tuple[int, ...]:
    """The frequencies whose cosine or sine component of a table exceeds a quarter of the largest
    one (arXiv 2301.05217).

    Args:
        params: parameters of one seed.
        model: the model, whose roles give the tables.
        p: the number of residues.
        table: "embedding", or "unembedding" for the output map.
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


def control_frequencies(keys: tuple[int, ...], p: int, seed: int) -> tuple[int, ...]:
    """Control frequencies: as many as the key ones, drawn by seed from all others.

    Args:
        keys: the key frequencies.
        p: the number of residues.
        seed: the seed of the run, and of the draw.

    Raises:
        RunError: if there are too few other frequencies.
    """
    others = [k for k in range(1, p // 2 + 1) if k not in keys]
    if len(others) < len(keys):
        raise RunError(
            f"{len(keys)} of {p // 2} frequencies are key: there are fewer others. Name fewer"
            " with frequencies=."
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
    off the norm of W as that of the key directions.

    Directions q_1, q_2, ... are drawn until sum_i ||q_i W||^2 reaches t = ||key_rows W||^2. The
    last direction q is removed in part: by the share f with f^2 ||q W||^2 = t - the sum before it,
    so its row is sqrt(f) q.

    Args:
        key_rows: orthonormal rows, the directions to match.
        W: the parameter, with the axis of tokens first.
        p: the number of residues; special tokens beyond it have zeros.
        seed: the seed of the run, and of the draw.
    """
    # float64: sums of squares over the whole array decide where the draws end.
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
