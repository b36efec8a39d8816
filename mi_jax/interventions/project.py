"""An intervention that projects directions out of weights: Fourier frequencies of the residues, or
any directions along an axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError, RunError, nearest, require, whole
from mi_jax.basics.pytrees import dotted, rebuild, take
from mi_jax.basics.records import frozen
from mi_jax.contracts import Model
from mi_jax.interventions.directions import (
    control_frequencies,
    frequency_rows,
    key_frequencies,
    random_rows,
)
from mi_jax.interventions.parameters import OfParameters
from mi_jax.interventions.places import Arrays, CheckContext, PrepareContext, value_field

Rule = Literal["key", "control", "random"]
Table = Literal["unembedding", "embedding"]
Kind = Literal["rule", "frequencies", "by seed", "rows"]
Frequencies = tuple[int, ...] | tuple[tuple[int, tuple[int, ...]], ...]
Directions = (
    Rule | tuple[int, ...] | tuple[tuple[int, tuple[int, ...]], ...] | tuple[tuple[float, ...], ...]
)

_ROWS, _COLUMNS = ("W_E",), ("W_U",)
"""Last names of the parameters whose rows, or columns, belong to residues."""

_PREFIX = "out."
"""Stands before the names of the parameters in stored arrays."""


@dataclass(frozen=True)
class Project(OfParameters):
    """Removes directions from weights after the update: W <- W - B^T B W.

    The rows of B are orthonormal directions along the axis of residues: the rows of every ``W_E``,
    the columns of every ``W_U``. Special tokens have zeros. Explicit directions go along the axis
    of residues if their length fits it; else along the first axis (the rows) or the last one,
    if it fits; else along the axis between them, as directions of d_model do in W_Q [head
    d_model d_head]. Where several of the list act in one update they act one after another, after
    every ``Freeze``, ``Reset`` and ``Graft``: a later one may bring a direction back only where
    its own directions along the same axis are not orthogonal to it.

    Example:
        >>> Project("embed.W_E", frequencies=(3, 7), start=400).directions
        (3, 7)

    Attributes:
        parameters: patterns of dotted names (``*``, ``*.W_*``, ``unembed.*``), or one pattern.
        directions: one of four kinds. (1) Frequencies for all seeds, such as ``(3, 7)``. (2) Pairs
            of a seed and its frequencies. (3) Rows of numbers: the directions themselves. (4) A
            rule that chooses directions for each seed at the first update that is changed: "key",
            the frequencies whose cosine or sine component of ``table`` exceeds a quarter of the
            largest one (arXiv 2301.05217); "control", as many other frequencies, drawn by seed;
            "random", random directions, drawn by seed until their removal takes as much off the
            norm of each parameter as the removal of the key frequencies would (the last direction
            is removed in part).
        every: number of updates from one projection to the next; None: project once, after update
            ``start``.
        table: the table whose key frequencies are meant: "unembedding" (the output map W_L) or
            "embedding".
        frequencies: another way to write ``directions`` of kinds 1 and 2. With "control" and
            "random", the frequencies to compare with instead of the key ones (early in training
            most frequencies are key).
    """

    directions: Directions = value_field(())
    every: int | None = value_field(1)
    table: Table = value_field("unembedding")
    frequencies: Frequencies = value_field((), added=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("directions", "frequencies"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        if self.frequencies and not isinstance(self.directions, str):
            require(
                not self.directions,
                f"Project: directions={self.directions} and frequencies={self.frequencies} are"
                " both given. Give one of them.",
            )
            object.__setattr__(self, "directions", tuple(self.frequencies))
            object.__setattr__(self, "frequencies", ())
        if self.directions == "key" and self.frequencies:
            raise ConfigError(
                "Project: directions='key' chooses the frequencies itself. Give frequencies beside"
                " 'control' or 'random', or alone."
            )
        rules, tables = get_args(Rule), get_args(Table)
        if isinstance(self.directions, str) and self.directions not in rules:
            raise ConfigError(
                f"Project: directions={self.directions!r} is unknown;"
                f" {nearest(self.directions, rules)}"
            )
        if self.every is not None:
            object.__setattr__(self, "every", whole("Project: every", self.every))
            require(
                self.every >= 1,
                f"Project: every={self.every} must be at least 1, or None for once.",
            )
        if self.table not in tables:
            raise ConfigError(
                f"Project: table={self.table!r} is unknown; {nearest(self.table, tables)}"
            )
        _ = _kind(self.directions), _kind(self.frequencies)

    @property
    def _kind(self) -> Kind:
        return _kind(self.directions)

    @property
    def period(self) -> int | None:
        """The number of updates from one projection to the next: ``every``."""
        return self.every

    @property
    def reads_weights(self) -> bool:
        """True if a rule chooses the directions."""
        return self._kind == "rule"

    def check(self, context: CheckContext) -> None:
        """Check that the directions fit the chosen parameters and the task's residues."""
        names = self.names(context.shapes)
        if self._kind == "rows":
            self._check_rows(context, names)
            return
        for name in names:
            if name.split(".")[-1] not in (*_ROWS, *_COLUMNS):
                raise ConfigError(
                    f"Project: {name} has no axis of residues. Frequencies can be projected out of"
                    " parameters called W_E or W_U."
                )
        if self._kind == "rule" and not self.frequencies:
            roles = context.model.roles
            if not (roles.embedding if self.table == "embedding" else roles.output_map):
                raise ConfigError(
                    f"Project: the model has no table '{self.table}' of residues. Give the"
                    " frequencies."
                )
            return
        self._check_frequencies(context.task.inputs.classes)

    def _check_rows(self, context: CheckContext, names: list[str]) -> None:
        lengths = {len(row) for row in self.directions}  # pyright: ignore
        if len(lengths) != 1:
            raise ConfigError(
                f"Project: all directions must be equally long; they have the lengths"
                f" {sorted(lengths)}."
            )
        for name in names:
            if not lengths <= set(context.shapes[name]):
                raise ConfigError(
                    f"Project: directions of length {max(lengths)} fit no axis of {name}"
                    f" {list(context.shapes[name])}."
                )

    def _check_frequencies(self, p: int) -> None:
        given = self.frequencies if self._kind == "rule" else self.directions
        lists = given if _kind(given) == "by seed" else ((0, given),)
        for _, frequencies in lists:  # pyright: ignore
            bad = [k for k in frequencies if not 1 <= k <= p // 2]  # pyright: ignore
            if bad:
                raise ConfigError(
                    f"Project: frequencies must lie between 1 and {p // 2}, for {p} residues; you"
                    f" gave {bad}."
                )

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """The rows of B for each chosen parameter: (seed, direction, axis)."""
        by_seed = [self._rows(context, index) for index in range(len(context.seeds))]
        return {
            f"{_PREFIX}{name}": _padded([rows[name] for rows in by_seed]) for name in by_seed[0]
        }

    def _rows(
        self, context: PrepareContext, seed_index: int
    ) -> Mapping[str, Float[np.ndarray, "direction axis"]]:
        """The rows of B for each chosen parameter of one seed."""
        shapes = {name: array.shape[1:] for name, array in dotted(context.params).items()}
        names, p, seed = self.names(shapes), context.inputs.classes, context.seeds[seed_index]
        if self._kind == "rows":
            rows = _orthonormal(np.asarray(self.directions, np.float64)).astype(np.float32)
            return dict.fromkeys(names, rows)
        # Without a rule the parameters may be shapes alone, which hold no numbers to take.
        params: Any = {}
        if self._kind == "rule":
            params = take(jax.tree.map(np.asarray, context.params), seed_index)
        keys = self._frequencies(params, context.model, p, seed)
        if self.directions == "control":
            keys = control_frequencies(keys, p, seed)
        rows_by_name = {name: frequency_rows(keys, p, shapes[name][_axis(name)]) for name in names}
        if self.directions != "random":
            return rows_by_name
        weights = dotted(params)
        return {
            name: random_rows(
                rows_by_name[name], np.moveaxis(weights[name], _axis(name), 0), p, seed
            )
            for name in names
        }

    def _frequencies(self, params: Params, model: Model, p: int, seed: int) -> tuple[int, ...]:
        """The frequencies given for a seed, or its key frequencies if none are given."""
        given: Any = self.frequencies if self._kind == "rule" else self.directions
        if self._kind == "rule" and not given:
            return key_frequencies(params, model, p, self.table)
        if _kind(given) == "frequencies":
            return tuple(given)
        by_seed = dict(given)
        if seed not in by_seed:
            raise RunError(
                f"Project: no frequencies are given for seed {seed}, only for {sorted(by_seed)}."
                " Add a pair for each seed of the run."
            )
        return tuple(by_seed[seed])

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """The parameters after the update, without the directions."""
        weights = dotted(params)
        projected = {}
        for label, rows in arrays.items():
            name = label.removeprefix(_PREFIX)
            W = weights[name]
            projected[name] = _removed(W, rows, _axis(name, rows.shape[-1], W.shape))
        return rebuild(params, {**weights, **projected})


def _kind(directions: Directions) -> Kind:
    """The kind of ``directions``. Raises ConfigError if they are of none."""
    if isinstance(directions, str):
        return "rule"
    if isinstance(directions, tuple):
        if all(_is_whole(k) for k in directions):
            return "frequencies"
        rows: list[Any] = [row for row in directions if isinstance(row, tuple)]
        if len(rows) == len(directions):
            if all(len(row) == 2 and _is_seed_pair(*row) for row in rows):
                return "by seed"
            if all(isinstance(x, (int, float)) for row in rows for x in row):
                return "rows"
    raise ConfigError(
        f"Project: directions={directions!r} must be frequencies such as (3, 7), pairs of a seed"
        " and frequencies such as ((0, (3, 7)), (1, (5,))), rows of numbers, or one of 'key',"
        " 'control', 'random'."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seed_pair(seed: Any, frequencies: Any) -> bool:
    """Whether the two are a seed and its frequencies."""
    return (
        _is_whole(seed)
        and isinstance(frequencies, tuple)
        and all(_is_whole(k) for k in frequencies)
    )


def _axis(name: str, length: int | None = None, shape: tuple[int, ...] = ()) -> int:
    """The axis along which directions are removed.

    Args:
        name: the dotted name of the parameter.
        length: the length of the directions; None: that of the axis of residues.
        shape: the shape of the parameter. The axis of residues is taken if it has this length,
            else the one at the other end, else one between them.
    """
    axis = -1 if name.split(".")[-1] in _COLUMNS else 0
    if length is None:
        return axis
    axes = (axis, -1 - axis, *range(1, len(shape) - 1))
    return next(axis for axis in axes if shape[axis] == length)


def _removed(
    W: Float[Array, "..."], rows: Float[Array, "direction axis"], axis: int
) -> Float[Array, "..."]:
    """W - B^T B W along an axis, with the rows of B."""
    first = jnp.moveaxis(W, axis, 0)
    flat = first.reshape(first.shape[0], -1)
    # B^T (B W), never (B^T B) W: the square matrix would be larger, and round differently.
    return jnp.moveaxis((flat - rows.T @ (rows @ flat)).reshape(first.shape), 0, axis)


def _orthonormal(directions: Float[np.ndarray, "direction axis"]) -> Float[np.ndarray, "span axis"]:
    """Orthonormal rows with the same span: fewer if directions are linearly dependent."""
    _, sizes, rows = np.linalg.svd(directions, full_matrices=False)
    return rows[sizes > 1e-10 * sizes.max(initial=0.0)]


def _padded(rows: list[Float[np.ndarray, "_ axis"]]) -> Float[Array, "seed direction axis"]:
    """The rows of all seeds in one array, padded to the longest and to at least one row.

    The padding is zeros, which remove nothing.
    """
    longest = max(1, *(len(of_seed) for of_seed in rows))
    padded = [np.pad(of_seed, ((0, longest - len(of_seed)), (0, 0))) for of_seed in rows]
    return jnp.asarray(np.stack(padded))
