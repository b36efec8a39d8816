"""Optimizers: settings whose numbers are traced, so that other values compile nothing."""

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, get_args

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from mi_jax.basics.dims import Count, Number
from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import Numbers, added, numbers_of, sweepable
from mi_jax.basics.pytrees import dotted, rebuild
from mi_jax.contracts import GradientTransformation, Optimizer
from mi_jax.training.decay import Groups, Towards, add_decay, hold_norm, matching
from mi_jax.training.filters import GradientFilter
from mi_jax.training.rates import RateSchedule, warmed_up

_LARGEST = float(jnp.finfo(jnp.float32).max)
_AT_LEAST_ZERO = ("learning_rate", "adam_learning_rate", "weight_decay", "l2", "eps")
_BELOW_ONE = ("b1", "b2", "momentum")
_POSITIVE = ("clip", "weight_norm")


@dataclass(frozen=True)
class Descent(Optimizer):
    """What all optimizers here share: theta <- theta - rate(s) u, u being ``rule`` of the filtered,
    clipped gradient.

    In this order: ``filter``, ``clip``, the rule (where ``l2`` comes first and decoupled decay
        last), the rate, ``weight_norm``.

    Attributes:
        learning_rate: lr, after warm-up.
        rate_schedule: what multiplies it, by update; None for nothing.
        filter: what happens to the gradient first; ``GrokfastEMA() | OrthogonalGradient()`` for
            both in turn.
        clip: the largest norm of the whole gradient, above which it is scaled down; None for any
            (arXiv 1211.5063).
        decay_multipliers: pairs of a pattern and what the decay of the names that match is
            multiplied by; the first match holds.
        decay_to: "zero", or "initial", decay to where the parameters were at step 0.
        weight_norm: after each update the weights are rescaled to this many times their norm at
            step 0 (1: arXiv 2210.01117); None leaves them free.
        warmup: updates over which the rate grows linearly: update s has the rate lr min(s / warmup,
            1), so that the first changes nothing (as in the code of arXiv 2301.05217); 0 for none.
        decayed: patterns of the dotted names that decay, decoupled or not.
    """

    learning_rate: float = sweepable(1e-3)
    _: KW_ONLY
    rate_schedule: RateSchedule | None = added(None)
    filter: GradientFilter | None = added(None)
    clip: float | None = sweepable(None, added=True)
    decay_multipliers: tuple[tuple[str, float], ...] = added(())
    decay_to: Towards = added("zero")
    weight_norm: float | None = sweepable(None, added=True)
    warmup: int = 0
    decayed: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in named.items():
            if name in _AT_LEAST_ZERO:
                # As a float32, which is what the step computes with.
                require(
                    0 <= value <= _LARGEST,
                    f"{name}={value}: must be a finite number of at least 0, below {_LARGEST:.2g}",
                )
            if name in _BELOW_ONE:
                require(0 <= value < 1, f"{name}={value}: must be at least 0 and less than 1")
            if name in _POSITIVE and value is not None:
                require(
                    0 < value <= _LARGEST,
                    f"{name}={value}: must be a finite number above 0, or None for none",
                )
        require(self.warmup >= 0, f"warmup={self.warmup}: must be at least 0")
        if self.rate_schedule is not None:
            end = self.rate_schedule.end
            told = (
                f"rate_schedule: ends at update {end}, within the warm-up of {self.warmup}; updates"
                " count from 0"
            )
            require(end > self.warmup, told)
        known = get_args(Towards)
        require(
            self.decay_to in known,
            f"decay_to={self.decay_to!r} is unknown; {nearest(str(self.decay_to), known)}",
        )
        self._groups.check()

    @property
    def _groups(self) -> Groups:
        return Groups(self.decayed, self.decay_multipliers)

    def decay(self, weight: Number) -> optax.GradientTransformation:
        """Adds the decay of the groups, of this weight, to what passes."""
        return add_decay(weight, self._groups, self.decay_to)

    def rate(self, base: Number, step: Count) -> Number:
        """A learning rate at update ``step``."""
        if self.warmup:
            base = base * warmed_up(step, self.warmup)
        return (
            base
            if self.rate_schedule is None
            else base * self.rate_schedule.factor(step, self.warmup)
        )

    @abstractmethod
    def rule(self, numbers: Numbers, step: Count) -> tuple[optax.GradientTransformation, ...]:
        """From the gradient to what is added to the parameters, in order."""

    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """The whole chain. What isn't asked for is not in it."""
        before = (
            () if self.filter is None else (self.filter.transform(numbers_of("filter", numbers)),)
        )
        clip = () if self.clip is None else (optax.clip_by_global_norm(numbers["clip"]),)
        norm = () if self.weight_norm is None else (hold_norm(numbers["weight_norm"]),)
        return optax.chain(*before, *clip, *self.rule(numbers, step), *norm)


@dataclass(frozen=True)
class SGD(Descent):
    """Gradient descent: b <- momentum b + g; u = b, or g + momentum b with ``nesterov``.

    Attributes:
        momentum: 0 for none.
        weight_decay: decoupled: lr weight_decay theta is taken off beside the gradient's part.
        l2: l2 theta is added to the gradient, before the momentum.
        nesterov: look ahead.
    """

    learning_rate: float = sweepable(0.1)
    momentum: float = sweepable(0.0)
    weight_decay: float = sweepable(0.0)
    l2: float = sweepable(0.0)
    nesterov: bool = False

    def rule(self, numbers: Numbers, step: Count) -> tuple[optax.GradientTransformation, ...]:
        """L2, momentum, decay, rate."""
        return (
            self.decay(numbers["l2"]),
            optax.trace(numbers["momentum"], self.nesterov),
            self.decay(numbers["weight_decay"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class Adam(Descent):
    """Adam (arXiv 1412.6980): u = m / (sqrt(v) + eps); its decay, ``l2``, is added to the gradient.
    AdamW decouples it.

    Attributes:
        l2: l2 theta is added to the gradient.
        b1, b2, eps: those of the paper.
    """

    l2: float = sweepable(0.0)
    b1: float = sweepable(0.9)
    b2: float = sweepable(0.999)
    eps: float = sweepable(1e-8)

    def rule(self, numbers: Numbers, step: Count) -> tuple[optax.GradientTransformation, ...]:
        """L2, Adam, rate."""
        return (
            self.decay(numbers["l2"]),
            optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class AdamW(Descent):
    """Adam with decoupled decay: theta <- theta - lr (m / (sqrt(v) + eps) + weight_decay theta), as
    in arXiv 1711.05101.

    Attributes:
        weight_decay: decoupled, multiplied by the learning rate.
        b1, b2, eps: of Adam; the defaults are those of arXiv 2301.05217.
    """

    weight_decay: float = sweepable(1.0)
    b1: float = sweepable(0.9)
    b2: float = sweepable(0.98)
    eps: float = sweepable(1e-8)

    def rule(self, numbers: Numbers, step: Count) -> tuple[optax.GradientTransformation, ...]:
        """Adam, decay, rate: optax.adamw."""
        return (
            optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
            self.decay(numbers["weight_decay"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class Muon(Descent):
    """Momentum whose matrices are orthogonalised by Newton-Schulz iterations; all other arrays go
    by AdamW.

    Of an array with more than two axes the last two are the matrix, one for each place of the
        others: one for each head.
    u = sqrt(max(1, columns / rows)) O(m), O the iteration of optax.contrib.muon (Jordan et al.
    2024, arXiv 2409.20325).

    Attributes:
        learning_rate: of the matrices. adam_learning_rate: of everything else.
        weight_decay: decoupled, for all parameters that decay, each multiplied by its own learning
            rate.
        momentum: of the matrices. nesterov: look ahead.
        b1, b2: of Adam. eps: of Adam and of the iteration.
        iterations: of Newton-Schulz.
        orthogonalized: patterns of the dotted names of the matrices: hidden ones, not embeddings
            and unembeddings.
    """

    learning_rate: float = sweepable(0.02)
    adam_learning_rate: float = sweepable(1e-3)
    weight_decay: float = sweepable(0.0)
    momentum: float = sweepable(0.95)
    b1: float = sweepable(0.9)
    b2: float = sweepable(0.98)
    eps: float = sweepable(1e-8)
    nesterov: bool = True
    iterations: int = 5
    orthogonalized: tuple[str, ...] = ("blocks.*.W_*",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, f"iterations={self.iterations}: must be at least 1")
        told = (
            "orthogonalized is empty: that is AdamW; name the matrices, such as ('blocks.*.W_*',)"
        )
        require(len(self.orthogonalized) > 0, told)

    def _labels(self, params: Any) -> Any:
        arrays = dotted(params)
        chosen = matching(self.orthogonalized, tuple(arrays), "orthogonalized")
        for name in sorted(chosen):
            told = (
                f"orthogonalized: '{name}' {list(arrays[name].shape)} is no matrix; choose patterns"
                " of matrices alone"
            )
            require(arrays[name].ndim >= 2, told)
        return rebuild(params, {name: "muon" if name in chosen else "adam" for name in arrays})

    def rule(self, numbers: Numbers, step: Count) -> tuple[optax.GradientTransformation, ...]:
        """Each array's own rule, decay, each array's own rate."""
        muon = contrib.scale_by_muon(
            ns_steps=self.iterations,
            beta=numbers["momentum"],
            eps=numbers["eps"],
            nesterov=self.nesterov,
            weight_dimension_numbers=lambda tree: jax.tree.map(
                lambda _: contrib.MuonDimensionNumbers(-2, -1), tree
            ),
        )
        by_shape = optax.stateless(
            lambda u, params: jax.tree.map(
                lambda x: max(1.0, x.shape[-1] / x.shape[-2]) ** 0.5 * x, u
            )
        )
        rules: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(muon, by_shape),
            "adam": optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
        }
        rates = {"muon": numbers["learning_rate"], "adam": numbers["adam_learning_rate"]}
        scales: dict[Hashable, optax.GradientTransformation] = {
            label: optax.scale_by_learning_rate(self.rate(rate, step))
            for label, rate in rates.items()
        }
        return (
            optax.partition(rules, self._labels),
            self.decay(numbers["weight_decay"]),
            optax.partition(scales, self._labels),
        )


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "muon": Muon}
"""Every optimizer's settings by registry name."""


def apply_gradients(
    transform: GradientTransformation, params: Any, opt_state: Any, gradients: Any
) -> tuple[Any, Any]:
    """One update: (params, opt_state) after it."""
    updates, opt_state = transform.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: p + u, params, updates), opt_state
