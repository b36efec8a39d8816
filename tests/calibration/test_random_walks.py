"""``walk_likeness`` of true random walks: near 1 for each seed, however many seeds there are."""

import numpy as np
import pytest
from recording import record

from mi_jax.dynamics import walk_likeness

MODES = 5


def _walks(rng: np.random.Generator, seeds: int, features: int, uneven: bool) -> np.ndarray:
    """Inner products of random walks of 60 steps, whose steps may have lengths that differ."""
    lengths = np.geomspace(0.1, 1, 60) if uneven else np.ones(60)
    moves = rng.normal(size=(seeds, 60, features), scale=lengths[None, :, None])
    moves[:, 0] += 20 * rng.normal(size=(seeds, features))  # first snapshots far apart
    rows = moves.cumsum(axis=1).reshape(seeds * 60, features)
    return rows @ rows.T


def _medians(seeds: int, draws: int, features: int, uneven: bool) -> np.ndarray:
    """Median over seeds and draws of the likeness of each component."""
    rng = np.random.default_rng(seeds)
    alike = [
        walk_likeness(_walks(rng, seeds, features, uneven), seeds, MODES) for _ in range(draws)
    ]
    return np.median(np.concatenate(alike), axis=0)


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_true_walks_look_like_walks(seeds: int) -> None:
    assert (_medians(seeds, 1, 4000, uneven=False) >= 0.9).all()


@pytest.mark.long
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("seeds", range(1, 11))
def test_true_walks_of_one_to_ten_seeds_look_like_walks(seeds: int, uneven: bool) -> None:
    medians = _medians(seeds, 4, 20_000, uneven)
    record(
        "walks",
        {"seeds": seeds, "step lengths": "uneven" if uneven else "even"}
        | {str(mode): float(likeness) for mode, likeness in enumerate(medians, 1)},
    )
    assert (medians >= 0.9).all(), medians
