"""Principal components of trajectories, joint over seeds, beside those of random walks, which draw
Lissajous figures.

A random walk in many dimensions has principal components cos(pi k t / T) and shares of variance
falling as 1 / k^2, whatever it walks through (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805):
curves that look like development and are none.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class PrincipalPath(NamedTuple):
    """Trajectories along their joint principal components."""

    scores: Float[np.ndarray, "seed step mode"]
    """Coordinates, centred over all seeds and steps; each mode's last coordinate of the first seed
    is positive.
    """
    shares: Float[np.ndarray, " mode"]
    """Of the variance over seeds and steps."""


def principal_path(rows: Float[np.ndarray, "seed step feature"], modes: int = 5) -> PrincipalPath:
    """The joint principal components of trajectories, one row a snapshot; through the Gram matrix,
    so features may be many.
    """
    seeds, steps = rows.shape[:2]
    flat = np.asarray(rows, np.float64).reshape(seeds * steps, -1)
    return path_of_products(flat @ flat.T, seeds, modes)


def walk_like(products: Float[np.ndarray, "row row"], seeds: int, modes: int = 5) -> PrincipalPath:
    """``walk_path`` with the step lengths, and the distances between the seeds' beginnings, of
    given trajectories.

    Args:
        products: inner products of all their rows, seed by seed.
    """
    steps = len(products) // seeds
    squares = np.diag(products)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0)).reshape(
        seeds, steps, seeds, steps
    )
    lengths = np.array([np.diag(apart[seed, :, seed], 1) for seed in range(seeds)])
    return walk_path(lengths, apart[:, 0, :, 0], modes)


def walk_path(
    lengths: Float[np.ndarray, "seed gap"],
    apart: Float[np.ndarray, "seed seed_other"] | None = None,
    modes: int = 5,
) -> PrincipalPath:
    """The same of random walks in infinitely many dimensions with these step lengths: the null of
    ``principal_path``.

    There all steps are orthogonal, so that <x_s, x_t> = sum of length^2 up to the earlier one;
    seeds' walks are independent.

    Args:
        lengths: ||x_{t+1} - x_t|| between snapshots, by seed.
        apart: ||x_0 - x_0'|| between the seeds' beginnings; all begin at one point by default.
    """
    seeds, gaps = lengths.shape
    gone = np.concatenate(
        [np.zeros((seeds, 1)), np.cumsum(np.asarray(lengths, np.float64) ** 2, axis=1)], axis=1
    )
    kernel = np.zeros((seeds, gaps + 1, seeds, gaps + 1))
    for seed in range(seeds):
        kernel[seed, :, seed, :] = np.minimum(gone[seed][:, None], gone[seed][None])
    if apart is not None:
        kernel -= (
            0.5 * (np.asarray(apart, np.float64) ** 2)[:, None, :, None]
        )  # centring takes what this leaves undetermined
    return path_of_products(kernel.reshape(seeds * (gaps + 1), -1), seeds, modes)


def path_of_products(
    products: Float[np.ndarray, "row row"], seeds: int, modes: int = 5
) -> PrincipalPath:
    """``principal_path`` from the inner products of all rows, seed by seed: they may be summed over
    blocks of features.
    """
    centred = products - products.mean(axis=0, keepdims=True)
    centred = centred - centred.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred)
    modes = min(modes, len(products) - 1)  # centring leaves no more
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :modes]
    scores = (vectors * np.sqrt(values[:modes])).reshape(seeds, -1, vectors.shape[1])
    signs = np.where(scores[0, -1] < 0, -1, 1)
    with np.errstate(invalid="ignore"):  # of what never moves there are no shares
        return PrincipalPath(scores * signs, values[:modes] / values.sum())


def likeness(path: PrincipalPath, null: PrincipalPath) -> Float[np.ndarray, " mode"]:
    """The squared correlation of each mode's scores with the null's of the same rank: 1 for a
    trajectory that walks at random.
    """
    one, other = (p.scores.reshape(-1, p.scores.shape[-1]) for p in (path, null))
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=0) ** 2 / ((one**2).sum(axis=0) * (other**2).sum(axis=0))
