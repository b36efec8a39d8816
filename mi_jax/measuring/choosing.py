"""Choosing measures: by name, by call with options, or all that a model and its task allow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mi_jax.basics.dims import check_dims
from mi_jax.basics.errors import MeasureError, nearest
from mi_jax.contracts import Measure
from mi_jax.contracts.measure import Subject
from mi_jax.measuring.labelling import task_names
from mi_jax.measuring.registry import EXPENSIVE, READINGS, with_options

ALL_REFERENCES = frozenset({"initial", "previous", "final"})


class Skipped(NamedTuple):
    """A measure that can't be taken here, and why."""

    name: str
    reason: str


Chosen = str | Measure | Callable[..., Any]


def choose(
    chosen: Sequence[Chosen] | None,
    subject: Subject,
    references: frozenset[str] = ALL_REFERENCES,
    *,
    among: Mapping[str, Measure] = READINGS,
) -> tuple[list[Measure], list[Skipped]]:
    """The measures to take: those named, or all that the model's roles, the task's concepts and
    splits, and the references allow.

    A name is one of READINGS or EXPENSIVE (never taken unless named), or a variable of one (two of
    one measure name it once), or a call with options (``readings.with_options``). A Measure is
    itself; a plain function ``(params, context) -> scalar`` is a measure of its own name. Roles and
    concepts are looked at here, before anything is built or traced.

    Raises:
        MeasureError: for an unknown name, two measures of one name, or a named one that can't be
            taken.
    """
    concepts, splits, _ = task_names(subject.task)
    measures = (
        list(among.values()) if chosen is None else [_as_measure(one) for one in _distinct(chosen)]
    )
    names = [name for one in measures for name in one.variables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MeasureError(f"more than one measure is named {twice}; give each a name of its own")
    roles = subject.model.roles
    lacking = {
        one.name: one.missing(roles, concepts, references, splits=splits, holders=subject.holders)
        for one in measures
    }
    skipped = [Skipped(name, reason) for name, reason in lacking.items() if reason]
    if chosen is not None and skipped:
        raise MeasureError(
            "; ".join(f"{name} can't be read here: it {reason}" for name, reason in skipped)
        )
    for one in measures:
        for name, dims in one.variables.items():
            check_dims(name, dims)
    return [one for one in measures if not lacking[one.name]], skipped


def _registered() -> dict[str, Measure]:
    """Every registered reading under its own name and those of its variables."""
    return {
        name: one
        for one in (*READINGS.values(), *EXPENSIVE.values())
        for name in (one.name, *one.variables)
    }


def _distinct(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Without other variables of a measure that is named already; the same name twice is kept, to
    be refused.
    """
    by_variable, named = _registered(), dict[str, str]()
    return [
        one
        for one in chosen
        if not (isinstance(one, str) and one in by_variable)
        or named.setdefault(by_variable[one].name, one) == one
    ]


def _as_measure(chosen: Chosen) -> Measure:
    if isinstance(chosen, Measure):
        return chosen
    if isinstance(chosen, str) and "(" in chosen:
        return with_options(chosen)
    if isinstance(chosen, str):
        by_variable = _registered()
        if chosen not in by_variable:
            raise MeasureError(f"there is no measure '{chosen}'; {nearest(chosen, by_variable)}")
        return by_variable[chosen]
    return Measure(chosen.__name__, chosen)
