"""Pytrees by name: nested dicts to flat dicts of dotted names and back; stacks; sizes."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from mi_jax.basics.dims import Count
from mi_jax.basics.errors import ConfigError, nearest


def dotted(tree: Any) -> dict[str, Any]:
    """Flatten a pytree to ``{dotted name: leaf}``, in the tree's own order.

    Example:
        >>> dotted({"embed": {"W_E": 1}, "blocks": {"0": {"b": 2}}})
        {'blocks.0.b': 2, 'embed.W_E': 1}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the nested dict whose dotted names are the keys of ``flat``.

    Example:
        >>> nested({"blocks.0.b": 2, "embed.W_E": 1})
        {'blocks': {'0': {'b': 2}}, 'embed': {'W_E': 1}}
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = leaf
    return tree


def rebuild(template: Any, flat: Mapping[str, Any]) -> Any:
    """Rebuild a tree with the structure of a template.

    Args:
        template: a pytree of the wanted structure.
        flat: the leaves, by dotted name.

    Raises:
        KeyError: if a leaf of the template has no entry in ``flat``.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    return structure.unflatten([flat[name] for name in names])


def matching(patterns: tuple[str, ...], names: tuple[str, ...], setting: str) -> frozenset[str]:
    """Names that match at least one pattern, such as ``*``, ``*.W_*`` or ``unembed.*``.

    Args:
        patterns: shell-style patterns, case-sensitive.
        names: dotted names of parameters.
        setting: the setting that holds the patterns, used in the error.

    Raises:
        ConfigError: if a pattern matches no name.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"{setting}: no parameter matches '{pattern}'; {nearest(pattern, names)}"
            )
    return frozenset(
        name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)
    )


def take(tree: Any, index: Count) -> Any:
    """Select one entry of the leading axis of every leaf.

    Args:
        tree: a pytree of arrays.
        index: the entry.
    """
    return jax.tree.map(lambda x: x[index], tree)


def stacked(trees: list[Any]) -> Any:
    """Stack trees of equal structure along a new leading axis, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def parameter_count(tree: Any) -> int:
    """Number of entries of all arrays of a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def byte_count(tree: Any) -> int:
    """Size of all arrays of a tree, in bytes."""
    return sum(
        int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )
