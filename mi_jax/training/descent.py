"""The base of the optimizers: filter, clip, rule, rate, and a held norm, in this order."""

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from typing import Any, get_args

import jax
import numpy as np
import optax

from mi_jax.basics.dims import Count, Number, Params
from mi_jax.basics.errors import ConfigError, check_choice, require
from mi_jax.basics.fields import Numbers, added, check_bounds, numbers_of, sweepable
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import GradientTransformation, Optimizer
from mi_jax.training.decay import (
    Groups,
    Towards,
    add_decay,
    held_norm,
    hold_norm,
    hold_norm_by_others,
)
from mi_jax.training.filters import GradientFilter
from mi_jax.training.rates import RateSchedule, warmed_up

_Transformations = tuple[optax.GradientTransformation, ...]


@dataclass(frozen=True)
class Descent(Optimizer):
    """Base of the optimizers: theta <- theta - rate(s) u at update s, where u is the ``rule`` of
    the filtered and clipped gradient.

    The order is: ``filter``, ``clip``, the rule (``l2`` first, decoupled decay last), the rate,
    ``weight_norm``.

    Attributes:
        learning_rate: the rate lr after warm-up.
        rate_schedule: a factor of the rate by update; None: constant.
        filter: the change made to the gradient first; ``GrokfastEMA() | OrthogonalGradient()`` for
            two, one after the other.
        clip: largest norm of the whole gradient, above which it is scaled down; None: no limit
            (arXiv 1211.5063).
        decay_multipliers: pairs of a pattern and a factor of the decay of the parameters whose
            names match; the first match counts, and the factor is 1 if none matches.
        decay_to: "zero", or "initial" for decay towards the parameters of step 0.
        weight_norm: rescale all parameters after each update to this many times their norm at step
            0 (1: arXiv 2210.01117); None: leave them free. After interventions on parameters, those
            that no ``Freeze``, ``Reset`` or ``Graft`` set in this update are rescaled to hold the
            norm of all.
        warmup: number of updates over which the rate grows linearly: update s has the rate
            lr min(s / warmup, 1), so the first update changes nothing (as in the code of arXiv
            2301.05217); 0: no warm-up.
        decayed: patterns of the dotted names that decay, decoupled or not.
    """

    learning_rate: float = sweepable(1e-3, minimum=0)
    _: KW_ONLY
    rate_schedule: RateSchedule | None = added(None)
    filter: GradientFilter | None = added(None)
    clip: float | None = sweepable(None, added=True, above=0)
    decay_multipliers: tuple[tuple[str, float], ...] = added(())
    decay_to: Towards = added("zero")
    weight_norm: float | None = sweepable(None, added=True, above=0)
    warmup: int = 0
    decayed: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        check_bounds(self)
        require(self.warmup >= 0, f"warmup={self.warmup}: must be at least 0.")
        if self.rate_schedule is not None and self.rate_schedule.end <= self.warmup:
            raise ConfigError(
                f"rate_schedule: ends at update {self.rate_schedule.end}, within the warm-up of"
                f" {self.warmup}. Updates count from 0; choose a later end or a shorter warm-up."
            )
        check_choice("decay_to", self.decay_to, get_args(Towards))
        self._groups.check()

    @property
    def _groups(self) -> Groups:
        return Groups(self.decayed, self.decay_multipliers)

    def decay(self, weight: Number) -> optax.GradientTransformation:
        """Transformation that adds the decay of the groups, multiplied by ``weight``."""
        return add_decay(weight, self._groups, self.decay_to)

    def rate(self, base: Number, step: Count) -> Number:
        """The learning rate at one update.

        Args:
            base: the rate after warm-up.
            step: the update, counted from 0.
        """
        if self.warmup:
            base = base * warmed_up(step, self.warmup)
        if self.rate_schedule is not None:
            base = base * self.rate_schedule.factor(step, self.warmup)
        return base

    @abstractmethod
    def rule(self, numbers: Numbers, step: Count) -> _Transformations:
        """The transformations, in order, from the gradient to what is added to the parameters.

        Args:
            numbers: the sweepable fields, traced.
            step: the update, counted from 0; traced.
        """

    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """The whole chain; settings that are None add nothing to it.

        Args:
            numbers: the sweepable fields, traced.
            step: the update, counted from 0; traced.
        """
        chain: list[optax.GradientTransformation] = []
        if self.filter is not None:
            chain.append(self.filter.transform(numbers_of("filter", numbers)))
        if self.clip is not None:
            chain.append(optax.clip_by_global_norm(numbers["clip"]))
        chain += self.rule(numbers, step)
        if self.weight_norm is not None:
            chain.append(hold_norm(numbers["weight_norm"]))
        return optax.chain(*chain)

    def constrain(
        self, params: Params, state: Any, numbers: Numbers, fixed: Collection[str]
    ) -> Params:
        """The parameters with the held norm restored after interventions.

        Args:
            params: the parameters after the interventions, of one seed.
            state: the state of the chain.
            numbers: the sweepable fields, traced.
            fixed: dotted names of the parameters that keep their values.
        """
        if self.weight_norm is None:
            return params
        return hold_norm_by_others(params, numbers["weight_norm"] * held_norm(state), fixed)

    def unholdable(
        self, params: Params, state: Any, numbers: Numbers, fixed: Collection[str]
    ) -> str | None:
        """The reason why the norm cannot be held while these parameters are fixed; else None.

        Args:
            params: the parameters, leading axis seed.
            state: the state of the chain.
            numbers: the sweepable fields.
            fixed: dotted names of the fixed parameters.
        """
        if self.weight_norm is None or not fixed:
            return None
        arrays = {name: np.asarray(jax.device_get(x)) for name, x in dotted(params).items()}
        kept = [np.square(x.astype(np.float64)) for name, x in arrays.items() if name in fixed]
        sizes = np.sqrt(sum(x.reshape(len(x), -1).sum(axis=1) for x in kept))
        norms = float(numbers["weight_norm"]) * np.asarray(held_norm(state), np.float64)
        free = len(kept) < len(arrays)
        bad = sizes >= norms if free else abs(sizes - norms) > 1e-3 * norms
        if not bad.any():
            return None
        seed_index = int(bad.argmax())
        return (
            f"weight_norm={float(numbers['weight_norm']):g} cannot be held. It asks for the norm"
            f" {norms[seed_index]:.4g} of all parameters, and those that Freeze holds alone have"
            f" {sizes[seed_index]:.4g}"
        )
