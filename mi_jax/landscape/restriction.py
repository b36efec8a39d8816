"""Which parameters are sampled: masks from patterns over dotted names (refined learning
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
"""A mask of the parameters' structure, or patterns of dotted names; None samples everything."""


def restrict(
    params: PyTree, *patterns: str, entry: int | None = None
) -> PyTree[Bool[np.ndarray, "..."]]:
    """A mask that is true for the arrays whose dotted names match any pattern (``*``, ``?``, as in
    a shell).

    Args:
        params: the arrays, or their shapes.
        entry: of these arrays, the entry of the leading axis alone: a head, as attention weights
            are [head ...].

    Raises:
        ConfigError: for a pattern that matches no array, or an array without such an entry.

    Example:
        >>> restrict({"W": np.zeros((2, 1)), "b": np.zeros(1)}, "W", entry=1)
        {'W': array([[False],
               [ True]]), 'b': array([False])}
    """
    arrays = dotted(params)
    for pattern in patterns or ("",):
        require(
            any(fnmatchcase(name, pattern) for name in arrays),
            f"the pattern '{pattern}' matches none of the parameters; {nearest(pattern, arrays)}",
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
    """The mask at one entry of the leading axis alone."""
    found = mask.shape[0] if mask.ndim else 0
    require(-found <= entry < found, f"{name} has {found} entries; entry={entry} is none of them")
    alone = np.zeros_like(mask)
    alone[entry] = mask[entry]
    return alone


def restricted(
    params: PyTree, patterns: Sequence[str], entry: int | None
) -> Bool[np.ndarray, " parameter"] | None:
    """The mask by flat parameter of ``restrict``; None where everything is sampled. Raises
    ConfigError as that does.
    """
    if not patterns:
        require(
            entry is None,
            f"entry={entry} of which parameters? name them, such as parameters='blocks.0.attn.W_*'",
        )
        return None
    return flat_mask(params, restrict(params, *patterns, entry=entry))


def flat_mask(params: PyTree, mask: Restriction) -> Bool[np.ndarray, " parameter"] | None:
    """The mask by flat parameter; None where everything is sampled.

    Raises:
        ConfigError: for patterns that match nothing, a mask of another structure or shape, or one
            that leaves nothing to sample.
    """
    if mask is None:
        return None
    if isinstance(mask, str):
        mask = (mask,)
    if isinstance(mask, (tuple, list)) and all(isinstance(pattern, str) for pattern in mask):
        mask = restrict(params, *mask)
    require(
        jax.tree.structure(mask) == jax.tree.structure(params),
        f"the mask has the arrays {sorted(dotted(mask))}, the parameters are"
        f" {sorted(dotted(params))}",
    )
    masks, arrays = dotted(mask), dotted(params)
    for name, x in arrays.items():
        fits = np.ndim(masks[name]) == 0 or np.shape(masks[name]) == np.shape(x)
        require(
            fits,
            f"the mask of {name} has the shape {np.shape(masks[name])}, the parameter"
            f" {np.shape(x)}",
        )
    # NumPy, so that a mask can be made while a program is traced.
    parts = [
        np.broadcast_to(np.asarray(masks[name]) != 0, np.shape(x)).ravel()
        for name, x in arrays.items()
    ]
    flat = np.concatenate(parts)
    require(bool(flat.any()), "the mask leaves no parameter to sample; it must be true somewhere")
    return flat
