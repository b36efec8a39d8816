"""Projecting directions out of weights: Fourier frequencies of the residues, or any directions
along an axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError, RunError, nearest, require, whole
from mi_jax.basics.fields import added
from mi_jax.basics.pytrees import dotted, rebuild, take
from mi_jax.basics.records import frozen
from mi_jax.contracts import Model
from mi_jax.interventions.directions import control, key_frequencies, random_rows, rows_of
from mi_jax.interventions.parameters import OfParameters
from mi_jax.interventions.places import Arrays, CheckContext, PrepareContext

Rule = Literal["key", "control", "random"]
Table = Literal["unembedding", "embedding"]
Kind = Literal["rule", "frequencies", "by seed", "rows"]
Frequencies = tuple[int, ...] | tuple[tuple[int, tuple[int, ...]], ...]
Directions = (
    Rule | tuple[int, ...] | tuple[tuple[int, tuple[int, ...]], ...] | tuple[tuple[float, ...], ...]
)

_ROWS, _COLUMNS = ("W_E",), ("W_U",)
_PREFIX = "out."


@dataclass(frozen=True)
class Project(OfParameters):
    """W <- W - B^T B W after the update: what of the weights lies along the rows of B is removed.

    B's rows are unit vectors along the axis of the residues: of the rows of every ``W_E``, the
    columns of every ``W_U``; special tokens have none. Explicit directions go along that axis too
    where they have its length, else along the other.

    Example:
        >>> Project("embed.W_E", frequencies=(3, 7), start=400).directions
        (3, 7)

    Attributes:
        parameters: patterns of dotted names.
        directions: frequencies, such as ``(3, 7)``, for all seeds; pairs of a seed and its
            frequencies; rows of numbers, the directions themselves; or a rule that gives each seed
            its own, read at the first update that is changed: "key", the frequencies whose cosine
            or sine component of ``table`` exceeds a quarter of its largest one (arXiv 2301.05217);
            "control", as many others, drawn by seed; "random", directions drawn by seed until what
            their removal takes off each parameter then has the norm of what that of the key
            frequencies would take (the last one is removed in part).
        every: updates from one projection to the next; None projects once, after update ``start``.
        table: which table's key frequencies: "unembedding" (W_L) or "embedding".
        frequencies: another way to write ``directions`` that are frequencies. Beside "control" and
            "random": the frequencies that those are compared with, in the place of the key ones
            (which early in training are most of them).
    """

    directions: Directions = ()
    every: int | None = 1
    table: Table = "unembedding"
    frequencies: Frequencies = added(())

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("directions", "frequencies"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        if self.frequencies and not isinstance(self.directions, str):
            require(not self.directions, "Project: give directions or frequencies, not both")
            object.__setattr__(self, "directions", tuple(self.frequencies))
            object.__setattr__(self, "frequencies", ())
        told = (
            "Project: directions='key' are those of the rule; name frequencies beside 'control' and"
            " 'random'"
        )
        require(self.directions != "key" or not self.frequencies, told)
        if isinstance(self.directions, str):
            known = get_args(Rule)
            require(
                self.directions in known,
                f"Project: directions={self.directions!r} is unknown;"
                f" {nearest(self.directions, known)}",
            )
        object.__setattr__(
            self, "every", None if self.every is None else whole("Project: every", self.every)
        )
        require(
            self.every is None or self.every >= 1,
            f"Project: every={self.every} must be at least 1, or None for once",
        )
        require(
            self.table in get_args(Table),
            f"Project: table={self.table!r} is unknown; {nearest(self.table, get_args(Table))}",
        )
        _ = _kind(self.directions), _kind(self.frequencies)

    @property
    def _kind(self) -> Kind:
        return _kind(self.directions)

    @property
    def period(self) -> int | None:
        """``every``."""
        return self.every

    @property
    def reads_weights(self) -> bool:
        """Where a rule chooses the directions."""
        return self._kind == "rule"

    def compile_key(self) -> "Project":
        """Itself without range and values."""
        return replace(
            self, directions=(), frequencies=(), every=1, table="unembedding", start=0, stop=None
        )

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        p, names = trained.task.inputs.classes, self.names(trained.shapes)
        if self._kind == "rows":
            lengths = {len(row) for row in self.directions}  # pyright: ignore
            require(
                len(lengths) == 1,
                f"Project: directions have the lengths {sorted(lengths)}; all must be equally long",
            )
            for name in names:
                told = (
                    f"Project: directions of length {lengths} fit no axis of {name}"
                    f" {list(trained.shapes[name])}"
                )
                require(lengths <= set(trained.shapes[name]), told)
            return
        for name in names:
            told = (
                f"Project: {name} has no axis of residues; frequencies are projected out of arrays"
                " called W_E or W_U"
            )
            require(name.split(".")[-1] in (*_ROWS, *_COLUMNS), told)
        if self._kind == "rule" and not self.frequencies:
            told = "Project: the model has no such table; give the frequencies"
            require(
                bool(
                    trained.model.roles.embedding
                    if self.table == "embedding"
                    else trained.model.roles.output_map
                ),
                told,
            )
            return
        named = self.frequencies if self._kind == "rule" else self.directions
        lists = named if _kind(named) == "by seed" else ((0, named),)
        for _, chosen in lists:  # pyright: ignore
            bad = [k for k in chosen if not 1 <= k <= p // 2]  # pyright: ignore
            require(
                not bad,
                f"Project: frequencies {bad} are none of {p} residues, which have 1 to {p // 2}",
            )

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """See ``Intervention``."""
        by_seed = [self._rows(moment, place) for place in range(len(moment.seeds))]
        return {
            f"{_PREFIX}{name}": _stacked([rows[name] for rows in by_seed]) for name in by_seed[0]
        }

    def _rows(
        self, moment: PrepareContext, place: int
    ) -> Mapping[str, Float[np.ndarray, "direction axis"]]:
        """The rows of B for each chosen parameter of one seed."""
        shapes = {name: array.shape[1:] for name, array in dotted(moment.params).items()}
        names, p, seed = self.names(shapes), moment.inputs.classes, moment.seeds[place]
        if self._kind == "rows":
            rows = _spanning(np.asarray(self.directions, np.float64)).astype(np.float32)
            return dict.fromkeys(names, rows)
        # Without a rule there may be shapes alone.
        own = take(jax.tree.map(np.asarray, moment.params), place) if self._kind == "rule" else {}
        keys = self._frequencies(own, moment.model, p, seed)
        if self.directions == "control":
            keys = control(keys, p, seed)
        chosen = {name: rows_of(keys, p, shapes[name][_axis(name)]) for name in names}
        if self.directions != "random":
            return chosen
        return {
            name: random_rows(chosen[name], np.moveaxis(dotted(own)[name], _axis(name), 0), p, seed)
            for name in names
        }

    def _frequencies(self, params: Params, model: Model, p: int, seed: int) -> tuple[int, ...]:
        """Those named for the seed, or its key ones."""
        named: Any = self.frequencies if self._kind == "rule" else self.directions
        if self._kind == "rule" and not named:
            return key_frequencies(params, model, p, self.table)
        if _kind(named) == "frequencies":
            return tuple(named)
        if seed not in dict(named):
            raise RunError(
                f"Project: no frequencies are named for seed {seed}, only for {sorted(dict(named))}"
            )
        return tuple(dict(named)[seed])

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """See ``AtParams``."""
        weights = dotted(params)
        left = {}
        for label, rows in arrays.items():
            name = label.removeprefix(_PREFIX)
            left[name] = _removed(
                weights[name], rows, _axis(name, rows.shape[-1], weights[name].shape)
            )
        return rebuild(params, {**weights, **left})


def _kind(given: Directions) -> Kind:
    """What ``directions`` are. Raises ConfigError for anything else."""
    if isinstance(given, str):
        return "rule"
    told = (
        f"Project: directions={given!r} must be frequencies such as (3, 7), pairs of a seed and"
        " frequencies such as ((0, (3, 7)), (1, (5,))), rows of numbers, or one of 'key',"
        " 'control', 'random'"
    )
    require(isinstance(given, tuple), told)
    if all(_is_whole(k) for k in given):
        return "frequencies"
    rows: list[Any] = [row for row in given if isinstance(row, tuple)]
    if len(rows) == len(given) and all(len(row) == 2 and _is_seeds_own(*row) for row in rows):
        return "by seed"
    if len(rows) == len(given) and all(isinstance(x, (int, float)) for row in rows for x in row):
        return "rows"
    raise ConfigError(told)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seeds_own(seed: Any, frequencies: Any) -> bool:
    return (
        _is_whole(seed)
        and isinstance(frequencies, tuple)
        and all(_is_whole(k) for k in frequencies)
    )


def _axis(name: str, length: int | None = None, shape: tuple[int, ...] = ()) -> int:
    """The axis that directions of a length go along: that of the residues (by default), or the
    other one where that fits.
    """
    axis = -1 if name.split(".")[-1] in _COLUMNS else 0
    return axis if length is None or shape[axis] == length else -1 - axis


def _removed(
    W: Float[Array, "..."], rows: Float[Array, "direction axis"], axis: int
) -> Float[Array, "..."]:
    """W without what lies along the rows."""
    first = jnp.moveaxis(W, axis, 0)
    flat = first.reshape(first.shape[0], -1)
    return jnp.moveaxis((flat - rows.T @ (rows @ flat)).reshape(first.shape), 0, axis)


def _spanning(directions: Float[np.ndarray, "direction axis"]) -> Float[np.ndarray, "span axis"]:
    """Orthonormal rows that span the same: fewer than were given where some follow from others."""
    _, sizes, rows = np.linalg.svd(directions, full_matrices=False)
    return rows[sizes > 1e-10 * sizes.max(initial=0.0)]


def _stacked(rows: list[Float[np.ndarray, "_ axis"]]) -> Float[Array, "seed direction axis"]:
    """Padded with rows of zeros, which remove nothing, to the longest and to at least one."""
    most = max(1, *(len(one) for one in rows))
    return jnp.asarray(np.stack([np.pad(one, ((0, most - len(one)), (0, 0))) for one in rows]))
