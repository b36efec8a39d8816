"""The level of evidence for a finding, by stated rules: observed, beats nulls, replicated, ..."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mi_jax.dynamics.significance import ALPHA, Direction, holm, shared_draws_p

REPLICATED = 5
"""Number of seeds that a replicated or causal finding needs."""

LEVELS = ("observed", "beats nulls", "replicated over seeds", "causal", "predictive")
"""Names of the levels of evidence, from 0 up."""


class Claim(NamedTuple):
    """A finding with its level of evidence.

    Attributes:
        text: the finding, in one sentence.
        level: index into ``LEVELS``.
        reason: the numbers behind the level, and what a higher one would need.
        reading: name of the reading that the finding is about.
        p: probability of such readings if there is nothing to find; None if it was not tested.
        supported: whether the finding holds at the error rate of its page.
        contradicted: whether the readings say the opposite, or less than the sentence.
    """

    text: str
    level: int
    reason: str
    reading: str = ""
    p: float | None = None
    supported: bool = False
    contradicted: bool = False


class ClaimTest(NamedTuple):
    """A claim before it is judged together with the others of its page.

    Attributes:
        text: the claim, in one sentence.
        reading: name of the reading that it is about.
        p: its p-value, adjusted for the other claims of its family; None without a null.
        seeds: number of seeds.
        reason: the numbers behind it, or why there is no null.
        family: name of the family that it is tested with; empty if it is tested alone.
        causal: whether the evidence is an intervention.
        large_enough: whether the readings are as large as the sentence says.
        contradicted: whether the readings say the opposite, or less than the sentence.
        smallest_p: the smallest p-value that the draws of its null allow; see
            ``significance.smallest_p``.
    """

    text: str
    reading: str
    p: float | None
    seeds: int
    reason: str
    family: str = ""
    causal: bool = False
    large_enough: bool = True
    contradicted: bool = False
    smallest_p: float = 0.0


def count_families(tested: Sequence[ClaimTest]) -> int:
    """Number of families that have a claim with a p-value; a claim tested alone counts as one."""
    return len(_families(tested))


def judge_page(tested: Sequence[ClaimTest]) -> list[Claim]:
    """Judges the claims of a page together: Holm's procedure at .05 over its families.

    The levels that this rule can reach:

    - 0, observed: the claim does not hold at the error rate of the page, or it has no null.
    - 1, beats nulls: it holds, with fewer than five seeds.
    - 2, replicated over seeds: it holds, with at least five seeds.
    - 3, causal: it holds, with at least five seeds, and its evidence is an intervention.

    The level predictive needs held-out runs.

    Args:
        tested: all claims of the page, passed or not.

    Returns:
        The claims, in the same order.

    Example:
        >>> tested = [
        ...     ClaimTest("Weights grow", "norm", 0.01, 5, "all grew"),
        ...     ClaimTest("Weights turn", "angle", 0.2, 5, "some turned"),
        ...     ClaimTest("Weights sing", "pitch", None, 5, "there is no null"),
        ... ]
        >>> [(claim.level, claim.supported) for claim in judge_page(tested)]
        [(2, True), (0, False), (0, False)]
    """
    families = _families(tested)
    needed = ALPHA / max(len(families), 1)
    decisions = holm([[p for _, p in family] for family in families])
    held = {
        index: decision
        for family, decided in zip(families, decisions, strict=True)
        for (index, _), decision in zip(family, decided, strict=True)
    }
    return [_judged(claim, held.get(index, False), needed) for index, claim in enumerate(tested)]


def _families(tested: Sequence[ClaimTest]) -> list[list[tuple[int, float]]]:
    """Index and p-value of each claim that has one, by family."""
    families: dict[str | int, list[tuple[int, float]]] = {}
    for index, claim in enumerate(tested):
        if claim.p is not None:
            families.setdefault(claim.family or index, []).append((index, claim.p))
    return list(families.values())


def _judged(claim: ClaimTest, holds: bool, needed: float) -> Claim:
    """The claim with its level.

    Args:
        claim: the test.
        holds: whether it holds at the error rate of the page.
        needed: p-value that the best claim of the page needs.
    """
    supported = holds and claim.large_enough
    reason, level = claim.reason, 0
    if supported:
        level = 1 if claim.seeds < REPLICATED else 3 if claim.causal else 2
        if claim.seeds < REPLICATED:
            kind = "causal" if claim.causal else "replicated"
            reason = f"{reason}; {REPLICATED} seeds are needed to count as {kind}"
    elif claim.p is not None and not holds and claim.smallest_p > needed:
        reason = (
            f"so few elements allow no p-value below {claim.smallest_p:.2g}, and the best claim of"
            f" this page needs {needed:.2g}; {reason}"
        )
    contradicted = claim.contradicted and not supported
    return Claim(claim.text, level, reason, claim.reading, claim.p, supported, contradicted)


def judge(
    text: str,
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, " draw"] | Sequence[float],
    direction: Direction,
) -> Claim:
    """Judges one claim alone: that a measure ends above (or below) draws that all seeds share.

    Claims of one page are judged together by ``judge_page``.

    Args:
        text: the finding, in one sentence.
        values: the measure's final value per seed. A NaN lies beyond no null.
        null: the measure's values where there is nothing to find; NaN draws are ignored.
        direction: side of the null on which the finding lies.

    Returns:
        The claim with its p-value (``significance.shared_draws_p``), its level and the reason.

    Example:
        >>> claim = judge("Weights grow", np.array([3.0, 4.0]), [1.0, 2.0, 1.5, 1.8, 1.9], "above")
        >>> claim.level, round(claim.p, 3)
        (1, 0.048)
    """
    return judge_page([shared_draws_test(text, "", values, null, direction)])[0]


def shared_draws_test(
    text: str,
    reading: str,
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, " draw"] | Sequence[float],
    direction: Direction,
) -> ClaimTest:
    """The claim that readings lie beyond draws that all seeds share.

    Args:
        text: the claim, in one sentence.
        reading: name of the reading.
        values: the reading per seed. A NaN lies beyond no null.
        null: readings with nothing to find; NaN draws are ignored.
        direction: side of the null on which the claim lies.
    """
    draws = np.asarray(null, np.float64)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return ClaimTest(text, reading, None, len(values), "there is no null to compare with")
    edge = draws.max() if direction == "above" else draws.min()
    beyond = values > edge if direction == "above" else values < edge
    reason = (
        f"{int(beyond.sum())} of {len(values)} seeds lie {direction} all {len(draws)} draws of the"
        f" null ({edge:.3g})"
    )
    p = shared_draws_p(values, draws, direction)
    opposite = opposed(values, np.broadcast_to(draws, (len(values), len(draws))), direction)
    return ClaimTest(text, reading, p, len(values), reason, contradicted=opposite)


def opposed(
    values: Float[np.ndarray, " seed"], null: Float[np.ndarray, "seed draw"], direction: Direction
) -> bool:
    """Whether every seed lies on the other side of the median of its null than a claim says.

    Args:
        values: the reading per seed.
        null: readings with nothing to find, by seed.
        direction: side of the null on which the claim lies.

    Example:
        >>> opposed(np.array([1.0]), np.array([[2.0, 3.0, 4.0]]), "above")
        True
    """
    middle = np.nanmedian(null, axis=1) if null.size else np.full(len(values), np.nan)
    return bool((values < middle if direction == "above" else values > middle).all())
