"""Masks of the parameters that are sampled, from patterns over dotted names (refined learning
coefficients, arXiv 2410.02984).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import jax
import numpy as np
from jaxtyping import Bool, PyTree

from mi_jax.basics.errors import nearest, require
from mi_jax.basics.pytrees import dotted, rebuild

Restriction = PyTree | str | Sequence[str] | None
"""Mask of the parameters' structure, or patterns of dotted names; None samples all parameters."""


def restrict(
    params: PyTree, *patterns: str, entry: int | None = None
) -> PyTree[Bool[np.ndarray, "..."]]:
    """Mask that is true for the arrays whose dotted names match any pattern.

    Args:
        params: parameters, or their shapes.
        patterns: patterns of dotted names with ``*`` and ``?``, as in a shell.
        entry: index on the leading axis of the matching arrays, to select it alone. Attention
            weights are [head ...], so that an entry is a head. None selects whole arrays.

    Returns:
        Pytree of boolean arrays of the parameters' structure.

    Raises:
        ConfigError: if a pattern matches no array, or an array has no such entry.

    Example:
        >>> restrict({"W": np.zeros((2, 1)), "b": np.zeros(1)}, "W", entry=1)
        {'W': array([[False],
               [ True]]), 'b': array([False])}
    """
    arrays = dotted(params)
    for pattern in patterns or ("",):
        require(
            any(fnmatchcase(name, pattern) for name in arrays),
            f"The pattern '{pattern}' matches none of the parameters; {nearest(pattern, arrays)}",
        )
    masks = {
        name: np.full(x.shape, any(fnmatchcase(name, pattern) for pattern in patterns))
        for name, x in arrays.items()
    }
    if entry is not None:
        masks = {
            name: _entry(name, mask, entry) if mask.any() else mask for name, mask in masks.items()
        }
    return rebuild(params, masks)


def _entry(name: str, mask: np.ndarray, entry: int) -> np.ndarray:
    """The mask restricted to one entry of the leading axis."""
    count = mask.shape[0] if mask.ndim else 0
    require(
        -count <= entry < count,
        f"entry={entry} must lie between {-count} and {count - 1}: {name} has {count} entries."
        if count
        else f"entry={entry} is given, but {name} is one number. Leave entry out.",
    )
    alone = np.zeros_like(mask)
    alone[entry] = mask[entry]
    return alone


def restricted(
    params: PyTree, patterns: Sequence[str], entry: int | None
) -> Bool[np.ndarray, " parameter"] | None:
    """Mask over the flat parameters, from patterns; None if there are no patterns.

    Args:
        params: parameters, or their shapes.
        patterns: patterns of dotted names; empty: all parameters are sampled.
        entry: index on the leading axis of the matching arrays; None: whole arrays.

    Raises:
        ConfigError: if a pattern matches no array, an array has no such entry, or an entry is given
            without patterns.
    """
    if not patterns:
        require(
            entry is None,
            f"entry={entry} is given without parameters. Name them, such as"
            " parameters='blocks.0.attn.W_*'.",
        )
        return None
    return flat_mask(params, restrict(params, *patterns, entry=entry))


def _names(tree: PyTree) -> str:
    """The dotted names of a pytree's arrays, in one line."""
    return ", ".join(sorted(dotted(tree))) or "none"


def flat_mask(params: PyTree, mask: Restriction) -> Bool[np.ndarray, " parameter"] | None:
    """Mask over the flat parameters; None if all are sampled.

    Args:
        params: parameters, or their shapes.
        mask: mask of the parameters' structure, or patterns of dotted names.

    Raises:
        ConfigError: if a pattern matches no array, the mask has another structure or shape, or it
            leaves nothing to sample.
    """
    if mask is None:
        return None
    if isinstance(mask, str):
        mask = (mask,)
    if isinstance(mask, (tuple, list)) and all(isinstance(pattern, str) for pattern in mask):
        mask = restrict(params, *mask)
    require(
        jax.tree.structure(mask) == jax.tree.structure(params),
        f"The mask must have the structure of the parameters. It has the arrays"
        f" {_names(mask)}, the parameters {_names(params)}. Make the mask with ``restrict``.",
    )
    masks, arrays = dotted(mask), dotted(params)
    for name, x in arrays.items():
        fits = np.ndim(masks[name]) == 0 or np.shape(masks[name]) == np.shape(x)
        require(
            fits,
            f"The mask of {name} must have the shape {np.shape(x)} of the parameter; it has"
            f" {np.shape(masks[name])}. Make the mask with ``restrict``.",
        )
    # NumPy, not jax.numpy: the mask must be concrete while a program is traced.
    parts = [
        np.broadcast_to(np.asarray(masks[name]) != 0, np.shape(x)).ravel()
        for name, x in arrays.items()
    ]
    flat = np.concatenate(parts)
    require(
        bool(flat.any()),
        "The mask is false everywhere, so there is nothing to sample. Choose a parameter.",
    )
    return flat
