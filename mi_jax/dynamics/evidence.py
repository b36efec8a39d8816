"""How good the evidence for a finding is: a rung of the ladder, by stated rules (observed, beats
nulls, replicated ...).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

REPLICATED = 5
"""Seeds that a replicated finding needs."""

LEVELS = ("observed", "beats nulls", "replicated over seeds", "causal", "predictive")


class Claim(NamedTuple):
    """A finding with its level of evidence, and why it isn't higher."""

    text: str
    level: int
    reason: str


def judge(
    text: str,
    values: Float[np.ndarray, " seed"],
    null: Float[np.ndarray, " draw"] | Sequence[float],
    direction: Literal["above", "below"],
) -> Claim:
    """The level of "this measure ends above (below) its null" over seeds.

    0 observed: not beyond the null in every seed. 1 beats nulls: every seed lies beyond all draws
        of the null. 2 replicated:
    that, in at least five seeds. Causal and predictive evidence need interventions and held-out
    runs.

    Args:
        values: one a seed. null: readings where there is nothing to find.
    """
    held = np.asarray(null, np.float64)
    held = held[~np.isnan(held)]
    if not len(held):
        return Claim(text, 0, "there is no null to compare with")
    edge = held.max() if direction == "above" else held.min()
    beyond = values > edge if direction == "above" else values < edge
    told = (
        f"{int(beyond.sum())} of {len(values)} seeds lie {direction} all {len(held)} draws of the"
        f" null ({edge:.3g})"
    )
    if not beyond.all():
        return Claim(text, 0, told)
    if len(values) < REPLICATED:
        return Claim(text, 1, f"{told}; {REPLICATED} seeds are needed to count as replicated")
    return Claim(text, 2, told)
