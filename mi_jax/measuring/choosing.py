"""Choosing measures: by name, by call with options, or all that the model and task allow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mi_jax.basics.dims import check_dims
from mi_jax.basics.errors import MeasureError, nearest
from mi_jax.contracts import Measure
from mi_jax.contracts.measure import Subject
from mi_jax.measuring.labelling import task_names
from mi_jax.measuring.registry import EXPENSIVE, READINGS, with_options
from mi_jax.measuring.sources import is_shipped

ALL_REFERENCES = frozenset({"initial", "previous", "final"})


class Skipped(NamedTuple):
    """A measure that cannot be taken here.

    Attributes:
        name: name of the measure.
        reason: half sentence such as "needs the task's split 'cascade'".
    """

    name: str
    reason: str


Chosen = str | Measure | Callable[..., Any]
"""A name, a call with options as text, a Measure, or a function ``(params, context) -> scalar``."""


def choose(
    chosen: Sequence[Chosen] | None,
    subject: Subject,
    references: frozenset[str] = ALL_REFERENCES,
    *,
    among: Mapping[str, Measure] = READINGS,
    why: str = "",
    stored: bool = True,
) -> tuple[list[Measure], list[Skipped]]:
    """Chooses the measures to take, before anything is built or traced.

    A name is that of a measure in READINGS or EXPENSIVE, or of one of its variables (two variables
    of one measure choose it once). A call with options is text (``registry.with_options``). A
    Measure is taken unchanged. A plain function ``(params, context) -> scalar`` becomes a measure
    of the function's name.

    Args:
        chosen: the measures to take; None: all of ``among`` that the model's roles, the task's
            ground truth and splits, and the references allow.
        subject: the model, task and loss that are measured.
        references: references that are available: "initial", "previous", "final".
        among: measures by name that None chooses from.
        why: sentence that says why a reference is not available.
        stored: whether the readings will be stored. Only then can a measure of the user replace
            the readings of a measure of mi_jax that has the same name.

    Returns:
        The measures to take, and the measures of ``among`` that were skipped.

    Raises:
        MeasureError: if a name is unknown, two measures have one name, a measure of the user has
            no name or, if it will be stored, that of one of mi_jax, or a named measure cannot be
            taken.
    """
    ground_truth, splits, _ = task_names(subject.task)
    if chosen is None:
        measures = list(among.values())
    else:
        measures = [_as_measure(name) for name in _distinct(chosen)]
    if stored:
        _check_names(measures, among)
    names = [name for measure in measures for name in measure.variables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MeasureError(f"More than one measure is named {twice}. Give each a name of its own.")
    reasons = {
        measure.name: measure.missing(
            subject.model.roles,
            ground_truth,
            references,
            splits=splits,
            holders=subject.holders,
        )
        for measure in measures
    }
    if why:
        reasons = {
            measure.name: f"{reason}. {why}" if reason and measure.uses - references else reason
            for measure in measures
            for reason in [reasons[measure.name]]
        }
    skipped = [Skipped(name, reason) for name, reason in reasons.items() if reason]
    if chosen is not None and skipped:
        raise MeasureError(
            "; ".join(f"{name} cannot be read here: it {reason}" for name, reason in skipped)
        )
    for measure in measures:
        for name, dims in measure.variables.items():
            check_dims(name, dims)
    return [measure for measure in measures if not reasons[measure.name]], skipped


def _registered() -> dict[str, Measure]:
    """Registered measures by their names and by the names of their variables."""
    return {
        name: measure
        for measure in (*READINGS.values(), *EXPENSIVE.values())
        for name in (measure.name, *measure.variables)
    }


def _distinct(chosen: Sequence[Chosen]) -> list[Chosen]:
    """The choices without further variables of a measure that is already chosen.

    The same name twice stays twice, so that ``choose`` refuses it.
    """
    by_variable, first_names = _registered(), dict[str, str]()
    return [
        choice
        for choice in chosen
        if not (isinstance(choice, str) and choice in by_variable)
        or first_names.setdefault(by_variable[choice].name, choice) == choice
    ]


def _as_measure(chosen: Chosen) -> Measure:
    """The measure that a name, a call, a Measure or a function stands for."""
    if isinstance(chosen, Measure):
        return chosen
    if isinstance(chosen, str) and "(" in chosen:
        return with_options(chosen)
    if isinstance(chosen, str):
        by_variable = _registered()
        if chosen not in by_variable:
            raise MeasureError(f"There is no measure '{chosen}'; {nearest(chosen, by_variable)}")
        return by_variable[chosen]
    name = getattr(chosen, "__name__", "<lambda>")
    if not name.isidentifier():
        raise MeasureError(
            f"{chosen!r} is a measure without a name of its own. Give it one:"
            " Measure('my_measure', function)."
        )
    return Measure(name, chosen)


def _check_names(measures: Sequence[Measure], among: Mapping[str, Measure]) -> None:
    """Refuses a measure of the user that has the name of one of mi_jax, whose readings it would
    replace.
    """
    shipped = {**among, **_registered()}
    for measure in measures:
        for name in (measure.name, *measure.variables):
            registered = shipped.get(name)
            if registered is not None and not is_shipped(measure, registered):
                raise MeasureError(
                    f"{name} is a measure of mi_jax. Your measure {measure.name} would replace its"
                    f" readings. Name yours otherwise, such as my_{name}."
                )
