"""Singular modes of a matrix followed through training: each mode becomes one line.

A line says when its mode appears, how fast it turns, and when it freezes.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

Noise = Literal["median", "first"]
"""Names of the thresholds that a mode has to exceed: see ``follow_modes``."""

LASTING = 3
"""Snapshots in a row above the noise that make a mode."""

FROZEN = 0.2
"""Radians from its last direction within which a mode counts as frozen."""


class ModeLines(NamedTuple):
    """The modes of a trajectory of matrices, each a line, in falling order of their last values.

    Attributes:
        values: singular values.
        noise: threshold that the singular values of noise stay below.
        alive: whether the value exceeds the threshold.
        found: whether the mode is above the threshold for three snapshots in a row (for all of
            them, if there are fewer).
        birth: date at which the mode's longest stretch above the threshold begins: the snapshot
            before it (-inf if there is none) and its first one, in steps. NaN for modes that are
            not found, as in ``death`` and ``frozen``.
        death: date at which that stretch ends: its last snapshot, and the first one after it (inf
            if it lasts to the end).
        turn: angle arccos(|u.u'| |v.v'|) from the snapshot before, in radians; NaN at the first
            snapshot.
        frozen: date from which the mode stays, until the end of its stretch, within .2 radians of
            its direction there: the last snapshot at which it did not (the lower bound of
            ``birth`` if there is none), and the next one.
        left: left singular vectors u at the last snapshot.
    """

    values: Float[np.ndarray, "step mode"]
    noise: Float[np.ndarray, " step"]
    alive: Bool[np.ndarray, "step mode"]
    found: Bool[np.ndarray, " mode"]
    birth: Float[np.ndarray, "mode bound"]
    death: Float[np.ndarray, "mode bound"]
    turn: Float[np.ndarray, "step mode"]
    frozen: Float[np.ndarray, "mode bound"]
    left: Float[np.ndarray, "row mode"]


def noise_threshold(
    values: Float[np.ndarray, "step mode"], shape: tuple[int, int]
) -> Float[np.ndarray, " step"]:
    """The threshold omega(beta) median(s), above which no singular value of noise lies.

    omega = .56 beta^3 - .95 beta^2 + 1.82 beta + 1.43, with beta the ratio of the shorter to the
    longer side, whatever the scale of the noise (Gavish and Donoho 2014, arXiv 1305.5870). It
    holds for noise plus fewer modes than half the shorter side.

    Args:
        values: singular values of each snapshot.
        shape: rows and columns of the matrices.

    Returns:
        The threshold of each snapshot, in the unit of the singular values.

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
    noise: Noise | float = "median",
) -> ModeLines:
    """Follows the largest singular modes of a matrix through training.

    The modes of one snapshot are assigned to those of the next such that the sum of |u.u'| |v.v'|
    is largest.

    Args:
        matrices: one per snapshot.
        steps: of the snapshots, in rising order.
        most: number of lines; by default half the shorter side.
        noise: threshold that a mode has to exceed. "median": ``noise_threshold`` of each snapshot,
            for matrices with independent noise. "first": the largest singular value of the first
            snapshot, for matrices that have a spectrum of their own from the beginning, as a
            product of two random matrices has. A number: that threshold, such as the largest
            singular value of the untrained matrix where the first snapshot is a later one. All are
            at least float32's rounding of the largest mode.

    Returns:
        ``ModeLines``; dates in steps.

    Example:
        >>> strength = np.array([0.0, 0.0, 5.0, 9.0, 9.0])
        >>> matrices = strength[:, None, None] * np.eye(4, 6)[None] * np.eye(4)[0][:, None]
        >>> lines = follow_modes(matrices, np.array([0, 10, 20, 30, 40]), most=1)
        >>> lines.birth.tolist()
        [[10.0, 20.0]]
    """
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    count = max(1, s.shape[1] // 2) if most is None else min(most, s.shape[1])
    if noise == "median":
        edge = noise_threshold(s, matrices.shape[1:])
    else:
        edge = np.full(len(s), s[0, 0] if noise == "first" else noise)
    # The median of a matrix without noise is rounding, and other rounding exceeds it.
    edge = np.maximum(edge, s[:, 0] * max(matrices.shape[1:]) * np.finfo(np.float32).eps)
    u, v, s = u[:, :, :count], vt[:, :count].transpose(0, 2, 1), s[:, :count]
    # order[t][i]: which mode of snapshot t continues line i.
    order, cosines = [np.arange(count)], []
    for now in range(1, len(s)):
        likeness = np.abs(u[now - 1].T @ u[now]) * np.abs(v[now - 1].T @ v[now])
        rows, columns = linear_sum_assignment(likeness[order[-1]], maximize=True)
        cosines.append(likeness[order[-1]][rows, columns])
        order.append(columns)
    last = np.argsort(-s[-1][order[-1]], kind="stable")
    modes = np.array(order)[:, last]
    values = np.take_along_axis(s, modes, axis=1)
    turn = np.arccos(
        np.clip(np.array([np.full(count, np.nan), *(row[last] for row in cosines)]), 0, 1)
    )
    alive = values > edge[:, None]
    begin, end = _longest(alive)
    found = end - begin >= min(LASTING, len(s))
    settled = _settled(u, v, modes, begin, end)
    # One more in front and behind, so that snapshot i lies between the entries i and i + 1.
    dates = np.concatenate([[-np.inf], np.asarray(steps, float), [np.inf]])
    return ModeLines(
        values=values,
        noise=edge,
        alive=alive,
        found=found,
        birth=_bounds(dates, begin, found),
        death=_bounds(dates, end, found),
        turn=turn,
        frozen=_bounds(dates, settled, found),
        left=u[-1][:, modes[-1]],
    )


def _bounds(
    dates: Float[np.ndarray, " entry"],
    first: Int[np.ndarray, " mode"],
    found: Bool[np.ndarray, " mode"],
) -> Float[np.ndarray, "mode bound"]:
    """The snapshot before each one given, and itself; NaN for modes that are not found."""
    return np.where(found[:, None], np.stack([dates[first], dates[first + 1]], axis=-1), np.nan)


def _longest(
    alive: Bool[np.ndarray, "step mode"],
) -> tuple[Int[np.ndarray, " mode"], Int[np.ndarray, " mode"]]:
    """Finds each mode's longest stretch of True.

    Returns:
        The index of the stretch's first snapshot, and that of the first snapshot after it.

    Of equally long stretches the last one counts.
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
    modes: Int[np.ndarray, "step mode"],
    begin: Int[np.ndarray, " mode"],
    end: Int[np.ndarray, " mode"],
) -> Int[np.ndarray, " mode"]:
    """The snapshot from which each line stays within FROZEN of its direction at its stretch's end.

    Args:
        u: left singular vectors of each snapshot.
        v: right singular vectors of each snapshot.
        modes: which mode of each snapshot belongs to each line.
        begin: first snapshot of each line's stretch.
        end: first snapshot after it.
    """
    settled = np.zeros(modes.shape[1], int)
    for line, (first, after) in enumerate(zip(begin, end, strict=True)):
        last = max(after - 1, 0)
        near = [
            abs(u[t, :, modes[t, line]] @ u[last, :, modes[last, line]])
            * abs(v[t, :, modes[t, line]] @ v[last, :, modes[last, line]])
            > np.cos(FROZEN)
            for t in range(first, last + 1)
        ]
        away = [t for t, is_near in enumerate(near) if not is_near]
        settled[line] = min(first + (away[-1] + 1 if away else 0), last)
    return settled
