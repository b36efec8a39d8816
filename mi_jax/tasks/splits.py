"""Splits of pairs into a training and a test set: published shuffles, and splits by structure.

A split orders the pairs; the first ``trained_count`` are trained on. A larger fraction trains on
everything that a smaller one does. The count depends on the fraction alone, not on the seed. A pair
(a, b) of elements 0 to n - 1 has the flat index a n + b. A task's domain lists the pairs that have
an answer: all n^2, or, if b divides, those with b != 0.
"""

import math
import random
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

Split = Literal["published", "power_2022", "permutation", "unordered", "held_out"]
"""Names of the splits: see ``split_order``."""


def trained_count(split: Split, pairs: int, n: int, fraction: float) -> int:
    """Number of trained pairs.

    It is ``int(fraction * pairs)``, except for the splits by structure, where it may be less.
    "unordered": ``int(fraction * single)`` single pairs and ``int(fraction * mirrored)`` sets of
    two mirrored pairs, see ``split_order``. "held_out": the pairs of m kept elements, with m as
    large as possible.

    Args:
        split: name of the split.
        pairs: number of pairs that have an answer: n^2, or n (n - 1) if b divides.
        n: number of elements.
        fraction: share of the pairs that is trained on.
    """
    full = pairs == n * n
    if split == "unordered":
        # If b divides, the mirror images of the pairs (0, b) are not in the domain.
        alone, mirrored = (n, n * (n - 1) // 2) if full else (2 * (n - 1), (n - 1) * (n - 2) // 2)
        return int(fraction * alone) + 2 * int(fraction * mirrored)
    target = int(fraction * pairs)
    if split == "held_out":
        return _pairs_of(_kept_count(target, full), full)
    return target


def split_order(
    split: Split,
    domain: Int[np.ndarray, " pair"],
    n: int,
    fraction: float,
    seed: int,
    answers: Int[np.ndarray, " pair"],
) -> Int[np.ndarray, " pair"]:
    """Order the pairs of a domain; the first ``trained_count`` are trained on.

    "published": Python's ``random.Random(seed).shuffle`` of the pairs in lexicographic order, as in
        the code of arXiv 2301.05217 and arXiv 2310.13061.
    "power_2022": ``numpy.random.RandomState(seed).shuffle`` of the pairs in lexicographic order, or
        in the order of (answer, b) if b divides, as in the code of arXiv 2201.02177. That code
        rounds the trained share to the nearest pair, not down.
    "permutation": ``numpy.random.default_rng(seed).permutation`` of the pairs in lexicographic
        order.
    "unordered": (a, b) and (b, a) are on the same side. Two kinds are shuffled apart, with the same
        share of each trained on: single pairs, which are their own mirror image or whose mirror
        image is not in the domain; and sets of two mirrored pairs.
    "held_out": the elements are shuffled and the first m kept. All pairs of kept elements are
        trained on, so that every other pair has a held-out element. If b divides, 0 is always
        kept.

    Args:
        split: name of the split.
        domain: flat indices of the pairs, [pair].
        n: number of elements.
        fraction: share of the pairs that is trained on.
        seed: seed of the shuffle.
        answers: answers of the domain's pairs, [pair].

    Returns:
        Flat indices of the pairs, [pair].
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
    """The domain's pairs under the exchange (a, b) -> (b, a).

    Attributes:
        alone: pairs that are their own mirror image, or whose mirror image is not in the domain.
        mirrored: pairs with a < b whose mirror image is in the domain too.
    """

    alone: Int[np.ndarray, " pair"]
    mirrored: Int[np.ndarray, " pair"]


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
    """Number of pairs of m kept elements: m^2, or m (m - 1) if one is 0, which cannot be b."""
    return kept * kept if full else kept * (kept - 1)


def _kept_count(target: int, full: bool) -> int:
    """Largest m whose pairs are at most ``target``, by integer square roots, which are exact."""
    return math.isqrt(target) if full else (1 + math.isqrt(1 + 4 * target)) // 2
