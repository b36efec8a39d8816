"""Interventions on parameters after an update: freeze them, reset them to step 0, or graft them
from another checkpoint.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, matching, rebuild
from mi_jax.basics.records import frozen
from mi_jax.interventions.places import (
    KEEPS,
    REPLACES,
    Arrays,
    AtParams,
    CheckContext,
    Intervention,
    PrepareContext,
    value_field,
)
from mi_jax.interventions.sites import check_same_shapes, normalize_checkpoint

Patterns = tuple[str, ...]


@dataclass(frozen=True)
class OfParameters(AtParams):
    """Base of the interventions on parameters that are chosen by name.

    Attributes:
        parameters: patterns of dotted names (``*``, ``*.W_*``, ``unembed.*``), or one pattern.
    """

    parameters: Patterns | str

    def __post_init__(self) -> None:
        super().__post_init__()
        name, given = type(self).__name__, self.parameters
        patterns = (given,) if isinstance(given, str) else frozen(given)
        if not isinstance(patterns, tuple) or not all(isinstance(p, str) for p in patterns):
            raise ConfigError(
                f"{name}: parameters={given!r} must be a pattern of names such as 'embed.*', or"
                " several."
            )
        if not patterns:
            raise ConfigError(f"{name}: parameters is empty. Name some, such as 'embed.*'.")
        object.__setattr__(self, "parameters", patterns)

    def names(self, params: Any) -> list[str]:
        """The dotted names that match, sorted.

        Raises:
            ConfigError: for a pattern that matches no name.
        """
        patterns = (self.parameters,) if isinstance(self.parameters, str) else self.parameters
        return sorted(matching(patterns, tuple(params), type(self).__name__))


def _with_arrays(params: Params, arrays: Arrays) -> Params:
    """The parameters with the named arrays in place of their own."""
    return rebuild(params, {**dotted(params), **arrays})


@dataclass(frozen=True)
class Freeze(OfParameters):
    """Parameters keep the values that they have when the range begins: neither gradient, decay nor
    a held norm changes them. The optimizer's moments continue to be updated.

    Another intervention may change frozen parameters: ``Freeze`` takes the optimizer's update back
    before ``Reset``, ``Graft`` and ``Project`` act, in any order of the list, and holds the values
    that they leave.

    Attributes:
        parameters: patterns of dotted names (``*``, ``*.W_*``, ``unembed.*``), or one pattern.

    Example:
        >>> Freeze("embed.*", start=400).parameters
        ('embed.*',)
    """

    stage: ClassVar[int] = KEEPS

    def fixed(self, params: Params) -> Collection[str]:
        """The frozen parameters."""
        return self.names(dotted(params))

    def check(self, context: CheckContext) -> None:
        """Check that every pattern matches a parameter."""
        self.names(context.shapes)

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """The parameters after the update, with the frozen ones as they were before it."""
        values = dotted(before)
        return _with_arrays(params, {name: values[name] for name in self.names(values)})


@dataclass(frozen=True)
class _Replacement(OfParameters):
    """Base of the interventions that replace parameters once, after update ``start``."""

    stage: ClassVar[int] = REPLACES

    @property
    def period(self) -> int | None:
        """None: once."""
        return None

    def fixed(self, params: Params) -> Collection[str]:
        """The replaced parameters."""
        return self.names(dotted(params))

    def overwrites(self, earlier: Intervention, names: Collection[str]) -> bool:
        """Whether every parameter that a ``Freeze``, ``Reset`` or ``Graft`` set is replaced."""
        sets = isinstance(earlier, (Freeze, _Replacement))
        return sets and set(earlier.names(names)) <= set(self.names(names))

    def after(self, params: Params, before: Params, arrays: Arrays) -> Params:
        """The parameters after the update, with the chosen ones replaced."""
        return _with_arrays(params, arrays)


@dataclass(frozen=True)
class Reset(_Replacement):
    """Parameters are set back to their values of step 0 once, after update ``start``, and train on
    from there. A ``Freeze`` of the same update, listed before or after, holds these values.

    Attributes:
        parameters: patterns of dotted names (``*``, ``*.W_*``, ``unembed.*``), or one pattern.
    """

    def check(self, context: CheckContext) -> None:
        """Check that every pattern matches a parameter."""
        self.names(context.shapes)

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """The chosen parameters of step 0."""
        initial = dotted(context.initial())
        return {name: initial[name] for name in self.names(initial)}


@dataclass(frozen=True)
class Graft(_Replacement):
    """Parameters are replaced once, after update ``start``, by those of another checkpoint of the
    same seed, and train on from there. A ``Freeze`` of the same update, listed before or after,
    holds these values.

    Attributes:
        parameters: patterns of dotted names (``*``, ``*.W_*``, ``unembed.*``), or one pattern.
        run: path of the run that the checkpoint belongs to; None: the run that was forked.
        step: step of the checkpoint.
    """

    run: str | None = value_field(neutral=None)
    step: int = value_field(neutral=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        normalize_checkpoint(self)

    def check(self, context: CheckContext) -> None:
        """Check that the other checkpoint has the chosen parameters, of the same shapes."""
        label = f"Graft: {self.run or 'the parent'} at step {self.step}"
        names = frozenset(self.names(context.shapes))
        check_same_shapes(label, context, self.run, self.step, names)

    def prepare(self, context: PrepareContext) -> dict[str, Any]:
        """The chosen parameters of the other checkpoint."""
        other = dotted(context.load_params(self.run, self.step))
        return {name: other[name] for name in self.names(other)}
