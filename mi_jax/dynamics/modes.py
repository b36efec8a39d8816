"""Singular modes of a matrix followed through training, so that one mode is one line: when it
appears, turns and freezes.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

Noise = Literal["median", "first"]
LASTING = 3
"""Snapshots in a row above the noise that make a mode."""
FROZEN = 0.2
"""Radians from its last direction within which a mode counts as frozen."""


class ModeLines(NamedTuple):
    """The modes of a trajectory of matrices, each a line; lines in falling order of their last
    values.
    """

    values: Float[np.ndarray, "step mode"]
    """Singular values."""
    noise: Float[np.ndarray, " step"]
    """The threshold that a singular value of noise stays below."""
    alive: Bool[np.ndarray, "step mode"]
    """Whether the value exceeds the threshold."""
    found: Bool[np.ndarray, " mode"]
    """Whether the mode is above the noise for three snapshots in a row (all, where there are
    fewer).
    """
    birth: Float[np.ndarray, " mode"]
    """The step at which its longest stretch above the noise begins; NaN for a line that isn't
    found.
    """
    death: Float[np.ndarray, " mode"]
    """The step at which that stretch has ended; NaN where it lasts to the end."""
    turn: Float[np.ndarray, "step mode"]
    """The angle arccos(|u.u'| |v.v'|), in radians, from the snapshot before; NaN at the first."""
    frozen: Float[np.ndarray, " mode"]
    """The step from which on it stays within .2 radians of its last direction, while it lives; NaN
    for lines not found.
    """
    left: Float[np.ndarray, "row mode"]
    """u at the last snapshot."""


def noise_threshold(
    values: Float[np.ndarray, "step mode"], shape: tuple[int, int]
) -> Float[np.ndarray, " step"]:
    """omega(beta) median(s): above it a singular value is no noise's, whatever the noise's scale
    (Gavish and Donoho 2014).

    omega = .56 beta^3 - .95 beta^2 + 1.82 beta + 1.43, beta the ratio of the shorter to the longer
    side; for noise plus fewer modes than half the sides.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(5, 60, 80))
        >>> s = np.linalg.svd(noise, compute_uv=False)
        >>> bool((s < noise_threshold(s, (60, 80))[:, None]).all())
        True
    """
    beta = min(shape) / max(shape)
    return (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43) * np.median(values, axis=-1)


def follow_modes(
    matrices: Float[np.ndarray, "step row column"],
    steps: Int[np.ndarray, " step"],
    *,
    most: int | None = None,
    noise: Noise = "median",
) -> ModeLines:
    """Follows the largest singular modes: from each snapshot to the next by the assignment with the
    largest sum of |u.u'| |v.v'|.

    Args:
        steps: of the snapshots, rising.
        most: how many lines; by default half the shorter side.
        noise: what a mode must exceed. "median": ``noise_threshold`` of each snapshot, for a matrix
            with independent noise. "first": the largest singular value of the first snapshot, for
            what has a spectrum of its own from the beginning, as the product of two random matrices
            has. In both cases more than float32's rounding of the largest mode.
    """
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    count = max(1, s.shape[1] // 2) if most is None else min(most, s.shape[1])
    edge = noise_threshold(s, matrices.shape[1:]) if noise == "median" else np.full(len(s), s[0, 0])
    # Of a matrix without noise the median is rounding, and other rounding exceeds it.
    edge = np.maximum(edge, s[:, 0] * max(matrices.shape[1:]) * np.finfo(np.float32).eps)
    u, v, s = u[:, :, :count], vt[:, :count].transpose(0, 2, 1), s[:, :count]
    order, cosines = [np.arange(count)], []
    for now, then in zip(range(1, len(s)), range(len(s) - 1), strict=True):
        likeness = np.abs(u[then].T @ u[now]) * np.abs(v[then].T @ v[now])
        rows, columns = linear_sum_assignment(likeness[order[-1]], maximize=True)
        cosines.append(likeness[order[-1]][rows, columns])
        order.append(columns)
    last = np.argsort(-s[-1][order[-1]], kind="stable")
    places = np.array(order)[:, last]
    values = np.take_along_axis(s, places, axis=1)
    turn = np.arccos(
        np.clip(np.array([np.full(count, np.nan), *(one[last] for one in cosines)]), 0, 1)
    )
    alive = values > edge[:, None]
    begin, end = _longest(alive)
    found = end - begin >= min(LASTING, len(s))
    dates = np.asarray(steps, float)
    return ModeLines(
        values,
        edge,
        alive,
        found,
        np.where(found, dates[np.minimum(begin, len(s) - 1)], np.nan),
        np.where(found & (end < len(s)), dates[np.minimum(end, len(s) - 1)], np.nan),
        turn,
        np.where(found, dates[_settled(u, v, places, begin, end)], np.nan),
        u[-1][:, places[-1]],
    )


def _longest(
    alive: Bool[np.ndarray, "step mode"],
) -> tuple[Int[np.ndarray, " mode"], Int[np.ndarray, " mode"]]:
    """Where each mode's longest stretch of True begins, and the place after its end; the last of
    equally long ones.
    """
    begin, end = (np.zeros(alive.shape[1], int) for _ in range(2))
    run = np.zeros(alive.shape[1], int)
    for i, here in enumerate(alive):
        run = np.where(here, run + 1, 0)
        longer = (run >= end - begin) & here
        begin, end = np.where(longer, i + 1 - run, begin), np.where(longer, i + 1, end)
    return begin, end


def _settled(
    u: Float[np.ndarray, "step row mode"],
    v: Float[np.ndarray, "step column mode"],
    places: Int[np.ndarray, "step mode"],
    begin: Int[np.ndarray, " mode"],
    end: Int[np.ndarray, " mode"],
) -> Int[np.ndarray, " mode"]:
    """The first snapshot of a stretch from which on a mode stays within FROZEN of its direction at
    the stretch's end.
    """
    settled = np.zeros(places.shape[1], int)
    for mode, (first, after) in enumerate(zip(begin, end, strict=True)):
        last = max(after - 1, 0)
        near = [
            abs(u[t, :, places[t, mode]] @ u[last, :, places[last, mode]])
            * abs(v[t, :, places[t, mode]] @ v[last, :, places[last, mode]])
            > np.cos(FROZEN)
            for t in range(first, last + 1)
        ]
        away = [t for t, held in enumerate(near) if not held]
        settled[mode] = min(first + (away[-1] + 1 if away else 0), last)
    return settled
