"""Labels for probes: the class of each example under each concept, and control inputs.

A concept is a fact about an example that a probe can be fitted on, such as the parity of an
operand. The class of an example is a whole number from 0 to classes - 1. Rows follow
``Evaluation.inputs``: the splits one after another, in sorted order of their names.
"""

from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Int, Shaped

from mi_jax.basics.errors import ConfigError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Labels:
    """Classes of all examples under one concept.

    Attributes:
        values: class of each example, [example]; if a task reads several positions, class at
            each of them, [example position], with ``position`` as in ``Task.read``.
        classes: number of classes. Not all of them need occur.
    """

    values: Int[Array | np.ndarray, " example"] | Int[Array | np.ndarray, "example position"]
    classes: int = field(metadata={"static": True})


def labels(
    values: Shaped[np.ndarray, "example *position"] | Shaped[Array, "example *position"],
    classes: int,
) -> Labels:
    """Make labels and check their range.

    Args:
        values: class of each example, [example] or [example position]: whole numbers or booleans.
        classes: number of classes.

    Returns:
        The labels, with ``values`` as int32.

    Raises:
        ConfigError: if a value lies outside 0 to ``classes`` - 1.

    Example:
        >>> labels(np.array([False, True, True]), 2).values.tolist()
        [0, 1, 1]
    """
    whole = np.asarray(values).astype(np.int32)
    if not ((whole >= 0) & (whole < classes)).all():
        raise ConfigError(
            f"Labels are out of range. They reach from {whole.min(initial=0)} to"
            f" {whole.max(initial=0)}; with classes={classes} they must lie in 0 to {classes - 1}."
        )
    return Labels(whole, classes)


def token_labels(
    tokens: Int[np.ndarray, "example position"], alphabet: tuple[tuple[int, int], ...]
) -> dict[str, Labels]:
    """Make a label ``token_i`` for each position i at which more than one token can stand.

    Args:
        tokens: input tokens, [example position].
        alphabet: per position, the half-open range (first, end) of tokens that can stand there.

    Returns:
        Labels by name. The class of a token is its distance from ``first``.
    """
    return {
        f"token_{i}": labels(tokens[:, i] - first, end - first)
        for i, (first, end) in enumerate(alphabet)
        if end - first > 1
    }


def renamed_inputs(
    inputs: Shaped[np.ndarray, "example ..."], alphabet: tuple[tuple[int, int], ...], seed: int
) -> Shaped[np.ndarray, "example ..."]:
    """Rename tokens at random: the inputs of the control task of Hewitt and Liang.

    One permutation of the tokens serves all positions. It exchanges only tokens that may stand at
    the same positions. Float inputs have their features permuted instead.

    A probe is fitted on the activations of renamed inputs with the labels of the original inputs.
    Its accuracy says how well a probe can decode token identity as such. Initial weights treat all
    tokens alike, so before training every concept has a selectivity of mean 0, at every site and in
    every split. After training, a concept that merely names a token still has about 0. The control
    task is that of arXiv 1909.03368, with tokens in the role of word types.

    Args:
        inputs: tokens [example position], or floats whose last axis is the feature.
        alphabet: per position, the half-open range (first, end) of tokens that can stand there.
            Float inputs need none.
        seed: seed of the permutation.

    Returns:
        The renamed inputs, with the shape and dtype of ``inputs``.
    """
    rng, rows = np.random.default_rng([seed, len(inputs)]), np.asarray(inputs)
    if not np.issubdtype(rows.dtype, np.integer):
        return rows[..., rng.permutation(rows.shape[-1])]
    tokens = np.arange(max(end for _, end in alphabet))
    interchangeable: dict[tuple[bool, ...], list[int]] = {}
    for token in tokens.tolist():
        positions = tuple(first <= token < end for first, end in alphabet)
        interchangeable.setdefault(positions, []).append(token)
    names = tokens.copy()
    for group in interchangeable.values():
        names[group] = rng.permutation(group)
    return names[rows].astype(rows.dtype)
