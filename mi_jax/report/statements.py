"""Statements that a report tests: the sentence of each, its null, and how many draws it needs."""

from typing import Literal, NamedTuple

import xarray as xr

from mi_jax.dynamics.significance import (
    Direction,
    joint_draws_needed,
    own_draws_needed,
    shared_draws_needed,
)
from mi_jax.measuring.nulls import CLAIMS, Draws

LEAST_SHARE = 0.5
"""Share of the logits' variance that the key waves must explain in every seed before anything is
said to be explained by them, and share of the leading modes that must lie along them.
"""

LEAST_GINI = 0.25
"""Gini coefficient from which on a table is called sparse: that of equal components of which a
quarter are empty. Memorised tables have up to .15, those of grokked networks .4 to .8.
"""

LEAST_BITS = 0.25
"""Divergence, in bits, from which on a table is said to prefer some irreps."""


class Statement(NamedTuple):
    """A statement that a reading supports by lying beyond its null at the end of training.

    Attributes:
        reading: name of the reading.
        text: the statement.
        direction: side of the null on which the reading must lie.
        null: field of ``Nulls`` that holds the null: the same network with its elements renamed
            (for "there is structure") or with its answers relabelled (for "the waves explain"), or
            untrained networks.
        least: value that a reading must reach in every seed; 0 if the statement is about no size.
        size: name of the reading that must reach it.
    """

    reading: str
    text: str
    direction: Direction
    null: Literal["renamed", "relabelled", "expensive"]
    least: float = 0.0
    size: str = ""


STATEMENTS = (
    Statement(
        "gini_unembedding",
        "The unembedding is sparse in the Fourier basis",
        "above",
        "renamed",
        LEAST_GINI,
        "gini_unembedding",
    ),
    Statement(
        "gini_embedding",
        "The embedding is sparse in the Fourier basis",
        "above",
        "renamed",
        LEAST_GINI,
        "gini_embedding",
    ),
    Statement(
        "key_mode_share_unembedding",
        "The leading singular modes of the unembedding are waves of its key frequencies",
        "above",
        "renamed",
        LEAST_SHARE,
        "key_mode_share_unembedding",
    ),
    Statement(
        "irrep_divergence_unembedding",
        "The unembedding prefers some irreps",
        "above",
        "renamed",
        LEAST_BITS,
        "irrep_divergence_unembedding",
    ),
    Statement(
        "irrep_divergence_embedding",
        "The embedding prefers some irreps",
        "above",
        "renamed",
        LEAST_BITS,
        "irrep_divergence_embedding",
    ),
    Statement(
        "logit_fve",
        "Cosines of a o b - c at the key frequencies explain the logits",
        "above",
        "relabelled",
        LEAST_SHARE,
        "logit_fve",
    ),
    Statement(
        "restricted_loss",
        "The key frequencies alone carry the answer: their part of the logits has a lower loss than"
        " with the answers relabelled",
        "below",
        "relabelled",
        LEAST_SHARE,
        "logit_fve",
    ),
    Statement(
        "excluded_loss",
        "The network relies on the key frequencies: without them the training loss is higher than"
        " with the answers relabelled",
        "above",
        "relabelled",
        LEAST_SHARE,
        "logit_fve",
    ),
    Statement(
        "logits_explained",
        "Characters of irreps explain the logits",
        "above",
        "relabelled",
        LEAST_SHARE,
        "logits_explained",
    ),
    Statement(
        "hidden_restricted_loss",
        "The key irreps of the neurons alone carry the answer: their part has a lower loss than"
        " with the answers relabelled",
        "below",
        "relabelled",
        LEAST_SHARE,
        "logits_explained",
    ),
    Statement(
        "hidden_excluded_loss",
        "The network relies on the key irreps of the neurons: without them the training loss is"
        " higher than with the answers relabelled",
        "above",
        "relabelled",
        LEAST_SHARE,
        "logits_explained",
    ),
    Statement(
        "learning_coefficient",
        "The learning coefficient ends above that of untrained networks",
        "above",
        "expensive",
    ),
    Statement("sharpness", "Sharpness ends above that of untrained networks", "above", "expensive"),
)

PROBES = {"probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null"}
"""Readings that statements about concepts need, all of them."""


def draws_for(dataset: xr.Dataset) -> Draws:
    """Numbers of draws with which each statement about a run can hold on its page.

    Args:
        dataset: the readings, dims (seed, step, ...).
    """
    readings, seeds = set(dataset), dataset.sizes["seed"]
    # The concepts of the probes are two families.
    tests = sum(each.reading in readings for each in STATEMENTS) + 2 * (readings >= PROBES)
    return Draws(
        renamed=joint_draws_needed(tests),
        relabelled=own_draws_needed(seeds, tests),
        untrained=max(CLAIMS.untrained, shared_draws_needed(seeds, tests)),
    )
