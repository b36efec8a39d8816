"""Tests of readings beside draws of a null: exact p-values, and Holm's procedure over a page.

A p-value here is the probability, if there is nothing to find, of readings that lie at least as far
beyond the null in *every* seed. Three ways of drawing a null have three formulas:

- shared draws (untrained networks): ``shared_draws_p``;
- draws of each seed's own (answers relabelled): ``own_draws_p``;
- one change applied to all seeds together (elements renamed): ``joint_draws_p``.

Draws that equal a reading count against the claim.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

ALPHA = 0.05
"""Largest probability that a page with nothing to find makes any claim."""

_ROUNDING = 1e-6
"""Readings whose difference is at most this share of the larger one count as equal."""

Direction = Literal["above", "below"]
"""Side of the null on which a claim says that the readings lie."""


def shared_draws_p(
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, " draw"],
    direction: Direction = "above",
) -> float:
    """p-value of n seeds beside B draws that they share, all of one distribution.

    C(n + j, n) / C(n + B, n), where j is the number of draws that do not lie below the least of the
    n seeds: the share of all choices of n from n + B readings that lie as high. With no such draw
    it is 1 / C(n + B, n).

    Args:
        values: reading per seed. A NaN lies beyond no draw.
        null: readings with nothing to find. A NaN is left out.
        direction: side of the null on which the claim lies.

    Returns:
        The p-value, from 0 to 1; 1 without draws.

    Example:
        >>> shared_draws_p(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0]))
        0.1
        >>> shared_draws_p(np.array([3.0, 4.0, 1.5]), np.array([1.0, 2.0]))
        0.4
    """
    values, null = _upwards(values, direction), _upwards(null, direction)
    null = null[~np.isnan(null)]
    if not len(null) or np.isnan(values).any():
        return 1.0
    beyond = int(_at_least(null, values.min(keepdims=True)).sum())
    seeds = len(values)
    return math.comb(seeds + beyond, seeds) / math.comb(seeds + len(null), seeds)


def own_draws_p(
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, "seed draw"],
    direction: Direction = "above",
) -> float:
    """p-value of n seeds, each beside draws of its own.

    (max_i p_i)^n with p_i = (1 + number of draws of seed i that lie at least as far) / (B_i + 1),
    B_i its number of draws: the probability that n independent p-values are all so small.

    Args:
        values: reading per seed. A NaN lies beyond no draw.
        null: readings with nothing to find, by seed. A NaN is left out.
        direction: side of the null on which the claim lies.

    Returns:
        The p-value, from 0 to 1.

    Example:
        >>> own_draws_p(np.array([3.0, 4.0]), np.array([[1.0, 2.0, 1.5], [1.0, 2.0, 1.5]]))
        0.0625
    """
    return float(seed_p_values(values, null, direction).max() ** len(values))


def seed_p_values(
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, "seed draw"],
    direction: Direction = "above",
) -> Float[np.ndarray, " seed"]:
    """p-value of each seed beside its own draws (see ``own_draws_p``), [seed].

    Args:
        values: reading per seed. A NaN lies beyond no draw.
        null: readings with nothing to find, by seed. A NaN is left out.
        direction: side of the null on which the claim lies.

    Example:
        >>> seed_p_values(np.array([3.0, 1.2]), np.array([[1.0, 2.0, 1.5], [1.0, 2.0, 1.5]]))
        array([0.25, 0.75])
    """
    values, null = _upwards(values, direction), _upwards(null, direction)
    beyond = _at_least(null, values[:, None]).sum(axis=1)
    draws = (~np.isnan(null)).sum(axis=1)
    return np.where(np.isnan(values), 1.0, (1 + beyond) / (draws + 1))


def joint_draws_p(
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, "seed draw"],
    direction: Direction = "above",
) -> float:
    """p-value of n seeds beside draws that change all seeds in the same way.

    The statistic of a draw is the largest rank p-value of the seeds under it, each among the
    reading and all draws of its own seed; p is the share of the B draws and the reading itself
    whose statistic is at most that of the reading. With independent seeds it is about
    (max_i p_i)^n. Unlike that formula it stays exact where seeds resemble each other because they
    were trained on the same examples.

    Args:
        values: reading per seed. A NaN lies beyond no draw.
        null: readings under B changes, by seed; column b is one change in all seeds. A change with
            a NaN in some seed is left out.
        direction: side of the null on which the claim lies.

    Returns:
        The p-value, at least 1 / (B + 1).

    Example:
        >>> joint_draws_p(np.array([3.0, 4.0]), np.array([[1.0, 2.0, 1.5], [1.0, 2.0, 5.0]]))
        0.25
    """
    values, null = _upwards(values, direction), _upwards(null, direction)
    null = null[:, ~np.isnan(null).any(axis=0)]
    if np.isnan(values).any():
        return 1.0
    readings = np.concatenate([values[:, None], null], axis=1)
    statistic = np.max([_ranks(row) for row in readings], axis=0)
    return float((statistic <= statistic[0]).mean())


def smallest_p(
    values: Float[np.ndarray, " seed"], null: Float[np.ndarray, "seed draw"], *, joint: bool
) -> float:
    """The p-value that readings would have if they lay beyond every draw that differs from them.

    Draws that leave a reading as it is (a group of p elements has symmetries, and with few elements
    they are a good part of all permutations) count against the claim whatever the network learned.

    Args:
        values: reading per seed.
        null: draws by seed, those of ``joint_draws_p`` or ``own_draws_p``. A NaN is left out.
        joint: whether a draw is one change in all seeds.

    Returns:
        Jointly (1 + number of draws that equal the readings of all seeds) / (B + 1), otherwise
        max_i ((1 + number of draws that equal reading i) / (B_i + 1))^n.

    Example:
        >>> values, null = np.array([3.0, 4.0]), np.array([[3.0, 1.0, 2.0], [4.0, 4.0, 2.0]])
        >>> smallest_p(values, null, joint=True), smallest_p(values, null, joint=False)
        (0.5, 0.5625)
    """
    values, null = np.asarray(values, np.float64), np.asarray(null, np.float64)
    equal = np.isclose(null, values[:, None], rtol=_ROUNDING, atol=0)
    if joint:
        known = ~np.isnan(null).any(axis=0)
        return float((1 + equal[:, known].all(axis=0).sum()) / (known.sum() + 1))
    draws = (~np.isnan(null)).sum(axis=1)
    return float(((1 + equal.sum(axis=1)) / (draws + 1)).max() ** len(values))


def _ranks(row: Float[np.ndarray, " draw"]) -> Int[np.ndarray, " draw"]:
    """Number of entries that are at least as large as each one but for rounding, itself included.

    A sort takes their number times its logarithm; comparing all pairs would take its square.
    """
    least = row - _ROUNDING * np.where(np.isfinite(row), np.abs(row), 0)
    return len(row) - np.searchsorted(np.sort(row), least)


def _at_least(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether x >= y, but for rounding."""
    return (x >= y) | np.isclose(x, y, rtol=_ROUNDING, atol=0)


def _upwards(values: np.ndarray, direction: Direction) -> np.ndarray:
    """The readings in float64, turned so that a claim says that they are large."""
    values = np.asarray(values, np.float64)
    return values if direction == "above" else -values


def sign_flip_p_values(
    differences: Float[np.ndarray, "seed cell"],
) -> Float[np.ndarray, " cell"]:
    """p-value of each cell's claim that a difference is positive in every seed, adjusted for all.

    With nothing to find, the differences of a seed may all change their sign together. The
    statistic of a cell is its least difference over seeds; p is the share of the 2^n choices of
    signs (beyond 12 seeds, of 4,096 random ones) under which the largest statistic of any cell is
    at least that of the cell (Westfall and Young 1993). So the smallest is the p-value of the
    family, by its maximum.

    Args:
        differences: by seed and cell; 1 for a cell with a NaN.

    Returns:
        The adjusted p-values, [cell], at least 2^-n.

    Example:
        >>> sign_flip_p_values(np.array([[1.0, -0.1], [2.0, 0.1]]))
        array([0.25, 1.  ])
    """
    seeds = len(differences)
    known = ~np.isnan(differences).any(axis=0)
    adjusted = np.ones(differences.shape[1])
    if not known.any():
        return adjusted
    if seeds <= _ENUMERATED:
        flips = 1 - 2 * ((np.arange(2**seeds)[:, None] >> np.arange(seeds)) & 1)
    else:
        drawn = np.random.default_rng(0).choice([1, -1], size=(2**_ENUMERATED - 1, seeds))
        flips = np.concatenate([np.ones((1, seeds), int), drawn])
    least = (flips[:, :, None] * differences[None][:, :, known]).min(axis=1)
    adjusted[known] = (least.max(axis=1)[:, None] >= least[0][None, :]).mean(axis=0)
    return adjusted


_ENUMERATED = 12
"""Largest number of seeds whose signs are enumerated."""


def within_family(p_values: Sequence[float]) -> list[float]:
    """p-values of the cells of a family, adjusted by Holm's procedure for the number of cells.

    The smallest adjusted one is the p-value of the family: the number of cells times the smallest.

    Args:
        p_values: p-value of each cell.

    Returns:
        The adjusted p-values, in the same order.

    Example:
        >>> [round(p, 3) for p in within_family([0.01, 0.5, 0.02])]
        [0.03, 0.5, 0.04]
    """
    order, count = np.argsort(p_values), len(p_values)
    rising = np.asarray(p_values, float)[order] * (count - np.arange(count))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.maximum.accumulate(rising), 1)
    return adjusted.tolist()


def holm(families: Sequence[Sequence[float]], alpha: float = ALPHA) -> list[list[bool]]:
    """Decisions of Holm's procedure over families of claims.

    A family of one claim is a claim. The claims of a family are adjusted for each other
    (``within_family``), so that it counts as one. Claims with p <= alpha / k hold, k being the
    number of families with a claim that does not hold yet; this is repeated while claims are
    added. The probability that any claim holds where there is nothing to find is at most alpha,
    however the claims depend on each other and whatever else is true.

    Args:
        families: adjusted p-value of each claim, by family.
        alpha: largest probability of a false claim.

    Returns:
        Whether each claim holds, by family.

    Example:
        >>> holm([[0.01], [0.02], [0.04, 0.2]])
        [[True], [True], [True, False]]
        >>> holm([[0.02], [0.3]]), holm([[0.03], [0.04]])
        ([[True], [False]], [[False], [False]])
    """
    held = [[False] * len(family) for family in families]
    while True:
        waiting = sum(not all(decisions) for decisions in held)
        new = [
            [
                p <= alpha / max(waiting, 1) or kept
                for p, kept in zip(family, decisions, strict=True)
            ]
            for family, decisions in zip(families, held, strict=True)
        ]
        if new == held:
            return held
        held = new


def shared_draws_needed(seeds: int, tests: int) -> int:
    """Smallest number B of shared draws with which a claim can hold on a page of ``tests`` claims.

    1 / C(n + B, n) <= .05 / tests.

    Args:
        seeds: number n of seeds.
        tests: number of claims, or families of claims, that are tested.

    Example:
        >>> [shared_draws_needed(n, 10) for n in (1, 2, 5)]
        [199, 19, 5]
    """
    draws = 1
    while math.comb(seeds + draws, seeds) * ALPHA < tests:
        draws += 1
    return draws


def own_draws_needed(seeds: int, tests: int) -> int:
    """Number of draws of each seed: max(19, (tests / .05)^(1/n) - 1, rounded up).

    The second is the smallest number with which (max_i p_i)^n reaches .05 / tests.

    Args:
        seeds: number n of seeds.
        tests: number of claims, or families of claims, that are tested.

    Example:
        >>> [own_draws_needed(n, 10) for n in (1, 2, 5)]
        [199, 19, 19]
    """
    draws = 19
    # Compared in whole numbers: the root of a power may be rounded up.
    while (draws + 1) ** seeds * ALPHA < tests:
        draws += 1
    return draws


def joint_draws_needed(tests: int) -> int:
    """Number of joint draws: max(199, tests / .05 - 1), whatever the number of seeds.

    Args:
        tests: number of claims, or families of claims, that are tested.

    Example:
        >>> joint_draws_needed(10), joint_draws_needed(15)
        (199, 299)
    """
    return max(199, math.ceil(tests / ALPHA) - 1)
