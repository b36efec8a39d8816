"""Principal components of trajectories, joint over seeds, beside those of random walks.

A random walk in many dimensions has the principal components cos(pi k t / T), with shares of
variance that fall as 1 / k^2, whatever it walks through: plotted against each other they draw
Lissajous figures (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805). Such curves look like
development and are none, so ``walk_path`` is the null of ``principal_path``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class PrincipalPath(NamedTuple):
    """Trajectories along their joint principal components.

    Attributes:
        scores: coordinates along each component, in the unit of the features, centred over all
            seeds and steps. The sign of each component makes the first seed's last coordinate
            positive.
        shares: share of the variance over seeds and steps that each component has; NaN if
            nothing moves.
    """

    scores: Float[np.ndarray, "seed step mode"]
    shares: Float[np.ndarray, " mode"]


def principal_path(rows: Float[np.ndarray, "seed step feature"], modes: int = 5) -> PrincipalPath:
    """The joint principal components of several seeds' trajectories.

    They are computed through the Gram matrix of the snapshots, so there may be many features.

    Args:
        rows: one snapshot per seed and step.
        modes: number of components; at most the number of snapshots less one.

    Returns:
        The scores and shares of the leading components.

    Example:
        >>> line = np.linspace(0, 1, 4)[None, :, None] * np.array([3.0, 4.0])
        >>> path = principal_path(line, modes=1)
        >>> path.scores[0, :, 0].round(3).tolist(), path.shares.round(3).tolist()
        ([-2.5, -0.833, 0.833, 2.5], [1.0])
    """
    seeds, steps = rows.shape[:2]
    flat = np.asarray(rows, np.float64).reshape(seeds * steps, -1)
    return path_of_products(flat @ flat.T, seeds, modes)


def walk_like(products: Float[np.ndarray, "row row"], seeds: int, modes: int = 5) -> PrincipalPath:
    """The null ``walk_path`` that matches given trajectories.

    It has the step lengths of the trajectories, and the distances between the seeds' first
    snapshots.

    Args:
        products: inner products of all snapshots, seed by seed.
        seeds: number of seeds; all have equally many snapshots.
        modes: number of components.

    Returns:
        The scores and shares of the walks.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(20, 1000)).cumsum(axis=0)
        >>> walk_like(rows @ rows.T, seeds=1).scores.shape
        (1, 20, 5)
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
    """The principal components of random walks in infinitely many dimensions.

    In infinitely many dimensions all steps of all walks are orthogonal, so that <x_s, x_t> is the
    sum of length^2 up to the earlier of the two, and the walks of different seeds are independent.

    Args:
        lengths: step lengths ||x_{t+1} - x_t|| between snapshots.
        apart: distances ||x_0 - x_0'|| between the seeds' first snapshots; by default all seeds
            begin at one point.
        modes: number of components.

    Returns:
        The scores and shares of the walks: the null of ``principal_path``.

    Example:
        >>> walk_path(np.ones((1, 200))).shares[:3].round(2).tolist()
        [0.61, 0.15, 0.07]
    """
    seeds, gaps = lengths.shape
    gone = np.concatenate(
        [np.zeros((seeds, 1)), np.cumsum(np.asarray(lengths, np.float64) ** 2, axis=1)], axis=1
    )
    kernel = np.zeros((seeds, gaps + 1, seeds, gaps + 1))
    for seed in range(seeds):
        kernel[seed, :, seed, :] = np.minimum(gone[seed][:, None], gone[seed][None])
    if apart is not None:
        # Distances determine inner products up to terms of a row or of a column alone, and
        # centring removes those.
        kernel -= 0.5 * (np.asarray(apart, np.float64) ** 2)[:, None, :, None]
    return path_of_products(kernel.reshape(seeds * (gaps + 1), -1), seeds, modes)


def path_of_products(
    products: Float[np.ndarray, "row row"], seeds: int, modes: int = 5
) -> PrincipalPath:
    """``principal_path`` from the inner products of all snapshots.

    Inner products may be summed over blocks of features that do not fit into memory together.

    Args:
        products: inner products of all snapshots, seed by seed.
        seeds: number of seeds; all have equally many snapshots.
        modes: number of components; at most the number of snapshots less one.

    Returns:
        The scores and shares of the leading components.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(6, 50))
        >>> blocks = sum(rows[:, i : i + 10] @ rows[:, i : i + 10].T for i in range(0, 50, 10))
        >>> same = principal_path(rows[None], modes=2).shares
        >>> bool(np.allclose(path_of_products(blocks, seeds=1, modes=2).shares, same))
        True
    """
    centred = products - products.mean(axis=0, keepdims=True)
    centred = centred - centred.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred)
    modes = min(modes, len(products) - 1)  # centring removes one dimension
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :modes]
    scores = (vectors * np.sqrt(values[:modes])).reshape(seeds, -1, vectors.shape[1])
    signs = np.where(scores[0, -1] < 0, -1, 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 if nothing moves
        return PrincipalPath(scores * signs, values[:modes] / values.sum())


def likeness(path: PrincipalPath, null: PrincipalPath) -> Float[np.ndarray, " mode"]:
    """The squared correlation of each component's scores with the null's component of that rank.

    Near 1 for the trajectory of one seed that walks at random: its figure is what any random walk
    draws. For several seeds see ``walk_likeness``.

    Args:
        path: the trajectories.
        null: the walks, with equally many seeds, steps and components.

    Returns:
        One number between 0 and 1 per component; NaN if nothing moves.

    Example:
        >>> null = walk_path(np.ones((1, 10)), modes=3)
        >>> likeness(null, null).round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    scores, null_scores = (p.scores.reshape(-1, p.scores.shape[-1]) for p in (path, null))
    with np.errstate(invalid="ignore"):  # 0 / 0 if nothing moves
        return (scores * null_scores).sum(axis=0) ** 2 / (
            (scores**2).sum(axis=0) * (null_scores**2).sum(axis=0)
        )


def walk_likeness(
    products: Float[np.ndarray, "row row"], seeds: int, modes: int = 5
) -> Float[np.ndarray, "seed mode"]:
    """How much each seed's trajectory looks like a random walk: ``likeness`` seed by seed.

    Each seed is centred by itself and compared with the walk of its own step lengths. Components
    over several seeds could not be compared rank by rank: the leading components of three or more
    independent walks have nearly equal variances, so that any rotation of them is as good.

    Args:
        products: inner products of all snapshots, seed by seed.
        seeds: number of seeds; all have equally many snapshots.
        modes: number of components.

    Returns:
        Squared correlations between 0 and 1, dims (seed, mode): near 1 in all leading components
        for a random walk in many dimensions. NaN where nothing moves, and beyond the components
        that a seed has: the number of its snapshots less one.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(2, 20, 5000)).cumsum(axis=1)
        >>> flat = rows.reshape(40, -1)
        >>> bool((walk_likeness(flat @ flat.T, seeds=2, modes=3) > 0.9).all())
        True
    """
    steps = len(products) // seeds
    blocks = np.asarray(products, np.float64).reshape(seeds, steps, seeds, steps)
    by_seed = np.full((seeds, modes), np.nan)
    for seed in range(seeds):
        block = blocks[seed, :, seed]
        alike = likeness(path_of_products(block, 1, modes), walk_like(block, 1, modes))
        by_seed[seed, : len(alike)] = alike
    return by_seed
