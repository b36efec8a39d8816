"""What is known of a task's examples as classes, for probes: labels by concept, and the control
labels to hold them against.

An example's concept is a whole number from 0 to classes - 1. Rows are those of the evaluation's
splits one after the other, in sorted order of their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Int, Shaped

from mi_jax.basics.errors import require


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Labels:
    """The class of every example under one concept; or, where a task reads several positions, at
    each of those it reads.

    Attributes:
        values: from 0 to classes - 1; ``position`` as in the task's ``read``.
        classes: how many there are; not all need occur.
    """

    values: Int[Array | np.ndarray, " example"] | Int[Array | np.ndarray, "example position"]
    classes: int = field(metadata={"static": True})


def labels(
    values: Shaped[np.ndarray, "example *position"] | Shaped[Array, "example *position"],
    classes: int,
) -> Labels:
    """Checked labels. Raises ConfigError for a value that is no class."""
    held = np.asarray(values).astype(np.int32)
    inside = bool(((held >= 0) & (held < classes)).all())
    require(
        inside,
        f"labels reach from {held.min(initial=0)} to {held.max(initial=0)}; they must lie in 0 to"
        f" {classes - 1}",
    )
    return Labels(held, classes)


def with_parities(whole: Mapping[str, Labels]) -> dict[str, Labels]:
    """Numbers by name, each followed by its parity: ``a``, ``a_parity``."""
    found: dict[str, Labels] = {}
    for name, one in whole.items():
        found |= {name: one, f"{name}_parity": labels(np.asarray(one.values) % 2, 2)}
    return found


def token_labels(
    tokens: Int[np.ndarray, "example position"], alphabet: tuple[tuple[int, int], ...]
) -> dict[str, Labels]:
    """``token_i``: the token at each position where more than one can stand, counted from the first
    that can.
    """
    return {
        f"token_{i}": labels(tokens[:, i] - first, end - first)
        for i, (first, end) in enumerate(alphabet)
        if end - first > 1
    }


def renamed(
    inputs: Shaped[np.ndarray, "example ..."], alphabet: tuple[tuple[int, int], ...], seed: int
) -> Shaped[np.ndarray, "example ..."]:
    """A control task's inputs: the same examples after tokens (of float inputs: features) were
    renamed at random.

    One permutation of the tokens serves all positions; it maps to each other only tokens that may
    stand at the same positions. A probe that is fitted on what a network makes of renamed inputs,
    with the labels of the original ones, decodes what the network makes of tokens as such: Hewitt
    and Liang's control task (arXiv 1909.03368), whose word types are ours. Initial weights treat
    tokens alike, so that a network before training has a selectivity of mean 0 for every concept,
    site and split; after it, a concept that merely names a token still has about 0.
    """
    rng, rows = np.random.default_rng([seed, len(inputs)]), np.asarray(inputs)
    if not np.issubdtype(rows.dtype, np.integer):
        return rows[..., rng.permutation(rows.shape[-1])]
    tokens = np.arange(max(end for _, end in alphabet))
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for token in tokens.tolist():
        kinds.setdefault(tuple(first <= token < end for first, end in alphabet), []).append(token)
    names = tokens.copy()
    for alike in kinds.values():
        names[alike] = rng.permutation(alike)
    return names[rows].astype(rows.dtype)
