"""Which pairs are trained on: published shuffles, and splits by structure.

A split orders the pairs so that the first are trained on, and a larger fraction always trains on
what a smaller one does. How many there are depends on the fraction alone, not on the seed. Pairs
are flat indices a n + b of elements 0 to n - 1; a task's domain lists those that it has: all n^2,
or those with b != 0 where b divides.
"""

import math
import random
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

Split = Literal["published", "power_2022", "permutation", "unordered", "held_out"]


def trained_count(split: Split, domain: Int[np.ndarray, " pair"], n: int, fraction: float) -> int:
    """How many pairs are trained on: at most ``int(fraction * pairs)``, and exactly that many but
    for the splits by structure.

    "unordered": ``int(fraction * one)`` pairs of their own and ``int(fraction * two)`` pairs of
    pairs (see ``split_order``). "held_out": those of m kept elements, m as large as that bound
    allows.
    """
    if split == "unordered":
        alone, mirrored = _orbits(domain, n)
        return int(fraction * len(alone)) + 2 * int(fraction * len(mirrored))
    target = int(fraction * len(domain))
    return (
        _pairs_of(_kept_count(target, len(domain) == n * n), len(domain) == n * n)
        if split == "held_out"
        else target
    )


def split_order(
    split: Split,
    domain: Int[np.ndarray, " pair"],
    n: int,
    fraction: float,
    seed: int,
    answers: Int[np.ndarray, " pair"],
) -> Int[np.ndarray, " pair"]:
    """The domain's pairs in the order of the split; the first ``trained_count`` are trained on.

    "published": Python's ``random.Random(seed).shuffle`` of the pairs in lexicographic order (the
    code of arXiv 2301.05217 and of
        arXiv 2310.13061).
    "power_2022": ``numpy.random.RandomState(seed).shuffle`` of the pairs in lexicographic order,
    where b divides in that of
        (answer, b) (the code of arXiv 2201.02177, which rounds the trained share to the nearest
        pair, not down).
    "permutation": ``numpy.random.default_rng(seed).permutation`` of the pairs in lexicographic
    order. "unordered": (a, b) and (b, a) on the same side. Pairs that are their own mirror image,
    or whose mirror image is not in the
        domain, and sets of two are shuffled apart, and of each the same share is trained on.
    "held_out": the elements are shuffled and the first m kept; trained on are all pairs of kept
    elements, so that every other
        pair holds a held-out one. Where b divides, 0 is always kept.

    Args:
        answers: of the domain's pairs.
    """
    if split == "published":
        pairs = domain.tolist()
        random.Random(seed).shuffle(pairs)
        return np.array(pairs, np.int32)
    if split == "power_2022":
        listed = domain if len(domain) == n * n else domain[np.lexsort((domain % n, answers))]
        pairs = listed.tolist()
        np.random.RandomState(seed).shuffle(pairs)
        return np.array(pairs, np.int32)
    rng = np.random.default_rng(seed)
    if split == "permutation":
        return domain[rng.permutation(len(domain))].astype(np.int32)
    trained = (
        _trained_unordered(domain, n, fraction, rng)
        if split == "unordered"
        else _trained_kept(domain, n, fraction, rng)
    )
    rest = rng.permutation(np.setdiff1d(domain, trained))
    return np.concatenate([trained, rest]).astype(np.int32)


class _Orbits(NamedTuple):
    """The domain's pairs under (a, b) -> (b, a)."""

    alone: Int[np.ndarray, " pair"]
    mirrored: Int[np.ndarray, " pair"]
    """Those with a < b whose mirror image is in the domain too."""


def _orbits(domain: Int[np.ndarray, " pair"], n: int) -> _Orbits:
    a, b = np.divmod(domain, n)
    both = np.isin(b * n + a, domain) & (a != b)
    return _Orbits(domain[~both], domain[both & (a < b)])


def _trained_unordered(
    domain: Int[np.ndarray, " pair"], n: int, fraction: float, rng: np.random.Generator
) -> Int[np.ndarray, " trained"]:
    alone, mirrored = (
        rng.permutation(pairs)[: int(fraction * len(pairs))] for pairs in _orbits(domain, n)
    )
    a, b = np.divmod(mirrored, n)
    return np.concatenate([alone, np.stack([mirrored, b * n + a], axis=1).ravel()])


def _trained_kept(
    domain: Int[np.ndarray, " pair"], n: int, fraction: float, rng: np.random.Generator
) -> Int[np.ndarray, " trained"]:
    full = len(domain) == n * n
    elements = rng.permutation(n)
    if not full:
        elements = np.concatenate([[0], elements[elements != 0]])
    kept = elements[: _kept_count(int(fraction * len(domain)), full)]
    a, b = np.divmod(domain, n)
    return rng.permutation(domain[np.isin(a, kept) & np.isin(b, kept)])


def _pairs_of(kept: int, full: bool) -> int:
    """How many pairs so many elements make: m^2, or m (m - 1) where 0 is one of them and can't be
    b.
    """
    return kept * kept if full else kept * (kept - 1)


def _kept_count(target: int, full: bool) -> int:
    """The largest m whose pairs are at most ``target``."""
    return math.isqrt(target) if full else (1 + math.isqrt(1 + 4 * target)) // 2
