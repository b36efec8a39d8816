"""Interventions on parameters after an update: frozen, reset to where they began, or grafted from
another checkpoint.
"""

from dataclasses import dataclass, replace
from typing import Any

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import require
from mi_jax.basics.pytrees import dotted, matching, rebuild
from mi_jax.basics.records import frozen
from mi_jax.interventions.places import Arrays, AtParams, CheckContext, PrepareContext
from mi_jax.interventions.sites import fitting, hold_checkpoint

Patterns = tuple[str, ...]


@dataclass(frozen=True)
class OfParameters(AtParams):
    """What interventions on parameters share: patterns of dotted names (``*``, ``*.W_*``,
    ``unembed.*``); one may stand alone.
    """

    parameters: Patterns | str

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.parameters,) if isinstance(self.parameters, str) else frozen(self.parameters)
        told = (
            f"{type(self).__name__}: parameters={self.parameters!r} must be a pattern of names such"
            " as 'embed.*', or several"
        )
        require(
            isinstance(given, tuple) and all(isinstance(pattern, str) for pattern in given), told
        )
        require(
            len(given) > 0,
            f"{type(self).__name__}: parameters is empty; name some, such as 'embed.*'",
        )
        object.__setattr__(self, "parameters", given)

    def names(self, params: Any) -> list[str]:
        """The dotted names that match, sorted. Raises ConfigError for a pattern that matches none."""
        patterns = (self.parameters,) if isinstance(self.parameters, str) else self.parameters
        return sorted(matching(patterns, tuple(params), type(self).__name__))


def _replaced(params: Params, others: dict[str, Any]) -> Params:
    return rebuild(params, {**dotted(params), **others})


@dataclass(frozen=True)
class Freeze(OfParameters):
    """Parameters keep the values that they have when the range begins, decay included. The
    optimizer's moments go on.
    """

    def compile_key(self) -> "Freeze":
        """Itself without range and values."""
        return replace(self, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        self.names(trained.shapes)

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """See ``AtParams``."""
        kept = dotted(before)
        return _replaced(params, {name: kept[name] for name in self.names(kept)})


@dataclass(frozen=True)
class Reset(OfParameters):
    """Parameters have their values of step 0 again after update ``start``, and train on from there.
    ``Freeze`` holds them.
    """

    @property
    def period(self) -> int | None:
        """Once."""
        return None

    def compile_key(self) -> "Reset":
        """Itself without range and values."""
        return replace(self, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        self.names(trained.shapes)

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """See ``Intervention``."""
        initial = dotted(moment.initial())
        return {name: initial[name] for name in self.names(initial)}

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """See ``AtParams``."""
        return _replaced(params, dict(arrays))


@dataclass(frozen=True)
class Graft(OfParameters):
    """Parameters are those of another checkpoint of the same seed after update ``start``, and train
    on from there.

    Attributes:
        parameters: patterns of dotted names.
        run: path of the run that the checkpoint is of; None for the one that was forked. step: its
            step.
    """

    run: str | None
    step: int

    def __post_init__(self) -> None:
        super().__post_init__()
        hold_checkpoint(self)

    @property
    def period(self) -> int | None:
        """Once."""
        return None

    def compile_key(self) -> "Graft":
        """Itself without range and values."""
        return replace(self, run=None, step=0, start=0, stop=None)

    def check(self, trained: CheckContext) -> None:
        """See ``Intervention``."""
        told, names = (
            f"Graft: {self.run or 'the parent'} at step {self.step}",
            frozenset(self.names(trained.shapes)),
        )
        fitting(told, trained, self.run, self.step, names)

    def prepare(self, moment: PrepareContext) -> dict[str, Any]:
        """See ``Intervention``."""
        theirs = dotted(moment.load_params(self.run, self.step))
        return {name: theirs[name] for name in self.names(theirs)}

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """See ``AtParams``."""
        return _replaced(params, dict(arrays))
