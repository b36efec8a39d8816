"""The level of evidence for a finding, by stated rules: observed, beats nulls, replicated, ..."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

REPLICATED = 5
"""Number of seeds that a replicated finding needs."""

LEVELS = ("observed", "beats nulls", "replicated over seeds", "causal", "predictive")
"""Names of the levels of evidence, from 0 up."""


class Claim(NamedTuple):
    """A finding with its level of evidence.

    Attributes:
        text: the finding, in one sentence.
        level: index into ``LEVELS``.
        reason: the numbers behind the level, and what a higher one would need.
    """

    text: str
    level: int
    reason: str


def judge(
    text: str,
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, " draw"] | Sequence[float],
    direction: Literal["above", "below"],
) -> Claim:
    """Judges the claim that a measure ends above (or below) its null in every seed.

    The levels that this rule can reach:

    - 0, observed: at least one seed does not lie beyond the null, or there is no null.
    - 1, beats nulls: every seed lies beyond every draw of the null.
    - 2, replicated over seeds: the same, with at least five seeds.

    The levels causal and predictive need interventions and held-out runs.

    Args:
        text: the finding, in one sentence.
        values: the measure's final value per seed. A NaN lies beyond no null.
        null: the measure's values where there is nothing to find; NaN draws are ignored.
        direction: side of the null on which the finding lies.

    Returns:
        The claim with its level and the reason for it.

    Example:
        >>> judge("Weights grow", np.array([3.0, 4.0]), [1.0, 2.0], "above").level
        1
    """
    draws = np.asarray(null, np.float64)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Claim(text, 0, "there is no null to compare with")
    edge = draws.max() if direction == "above" else draws.min()
    beyond = values > edge if direction == "above" else values < edge
    reason = (
        f"{int(beyond.sum())} of {len(values)} seeds lie {direction} all {len(draws)} draws of the"
        f" null ({edge:.3g})"
    )
    if not beyond.all():
        return Claim(text, 0, reason)
    if len(values) < REPLICATED:
        return Claim(text, 1, f"{reason}; {REPLICATED} seeds are needed to count as replicated")
    return Claim(text, 2, reason)
