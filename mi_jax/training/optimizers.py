"""Optimizers: settings whose numbers are traced, so that other values compile nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mi_jax.arrays import Count
from mi_jax.contracts import GradientTransformation, Numbers, Optimizer, sweepable
from mi_jax.errors import require
from mi_jax.pytrees import dotted, rebuild

_LARGEST = float(jnp.finfo(jnp.float32).max)


def decay_mask(patterns: tuple[str, ...]) -> Callable[[Any], Any]:
    """params -> which arrays decay: those whose dotted name matches one of the patterns (``*``, ``*.W_*``, ``unembed.*``)."""

    def mask(params: Any) -> Any:
        return rebuild(params, {name: any(fnmatchcase(name, p) for p in patterns) for name in dotted(params)})

    return mask


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled decay: theta <- theta - lr (m / (sqrt(v) + eps) + weight_decay theta), as in arXiv 1711.05101.

    Attributes:
        learning_rate: lr, after warm-up.
        weight_decay: decoupled, multiplied by the learning rate.
        b1, b2, eps: of Adam; the defaults are those of arXiv 2301.05217.
        warmup: updates over which the rate grows linearly: update s has the rate lr min(s / warmup, 1), so that the first
            changes nothing (as in that code); 0 for none.
        decayed: patterns of the dotted names that decay.
    """

    learning_rate: float = sweepable(1e-3)
    weight_decay: float = sweepable(1.0)
    b1: float = sweepable(0.9)
    b2: float = sweepable(0.98)
    eps: float = sweepable(1e-8)
    warmup: int = 0
    decayed: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "eps"):
            value = getattr(self, name)
            # As a float32, which is what the step computes with.
            require(0 <= value <= _LARGEST, f"{name}={value}: must be a finite number of at least 0, below {_LARGEST:.2g}")
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name}={value}: must be at least 0 and less than 1")
        require(self.warmup >= 0, f"warmup={self.warmup}: must be at least 0")

    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """optax.adamw with the rate of this step."""
        rate = numbers["learning_rate"]
        if self.warmup:
            rate = rate * jnp.minimum(jnp.asarray(step, jnp.float32) / self.warmup, 1.0)
        return optax.adamw(
            rate,
            b1=numbers["b1"],
            b2=numbers["b2"],
            eps=numbers["eps"],
            weight_decay=numbers["weight_decay"],
            mask=decay_mask(self.decayed),
        )


OPTIMIZERS = {"adamw": AdamW}
"""Every optimizer's settings by registry name."""


def apply_gradients(transform: GradientTransformation, params: Any, opt_state: Any, gradients: Any) -> tuple[Any, Any]:
    """One update: (params, opt_state) after it."""
    updates, opt_state = transform.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: p + u, params, updates), opt_state
