"""Three updates of an optimizer: in float32 by the library, in float64 by its formulas."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.basics.fields import sweepable_numbers
from mi_jax.basics.pytrees import dotted
from mi_jax.training import SGD, Adam, AdamW, GrokfastEMA, GrokfastMA, Muon, OrthogonalGradient
from mi_jax.training.filters import GradientFilter, InTurn
from mi_jax.training.optimizers import Descent, apply_gradients

Flat = dict[str, np.ndarray]


def tree() -> dict[str, Any]:
    """Parameters of size 1."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "embed": {"W_E": draw(3, 2), "b": draw(2)},
        "unembed": {"W_U": draw(2, 3), "b_U": draw(3)},
    }


def gradients(step: int) -> dict[str, Any]:
    """Gradients of every size from 1e-4 to 10."""
    rng = np.random.default_rng(100 + step)
    return jax.tree.map(
        lambda x: (10.0 ** rng.uniform(-4, 1, x.shape) * rng.choice([-1, 1], x.shape)).astype(
            np.float32
        ),
        tree(),
    )


def ours(settings: Descent, steps: int) -> Flat:
    """The parameters after some updates."""
    numbers = {name: jnp.float32(value) for name, value in sweepable_numbers(settings).items()}
    params = jax.tree.map(jnp.asarray, tree())
    state = settings.transform(numbers, 0).init(params)
    for step in range(steps):
        transform = settings.transform(numbers, jnp.int32(step))
        params, state = apply_gradients(
            transform, params, state, jax.tree.map(jnp.asarray, gradients(step))
        )
    return {name: np.asarray(x) for name, x in dotted(params).items()}


def wide(flat: Any) -> Flat:
    """A tree as float64 arrays by dotted name."""
    return {name: np.asarray(x, np.float64) for name, x in dotted(flat).items()}


def norm(flat: Flat) -> float:
    """The norm of all arrays together."""
    return float(np.sqrt(sum((x**2).sum() for x in flat.values())))


@dataclass
class ByHand:
    """The update rules as the papers write them, one parameter tree at a time."""

    settings: Any
    start: Flat = field(default_factory=lambda: wide(tree()))
    seen: list[Flat] = field(default_factory=list)
    memory: dict[str, Flat] = field(default_factory=dict)

    def after(self, steps: int) -> Flat:
        """The parameters after some updates."""
        theta, s = dict(self.start), self.settings
        for t in range(steps):
            g = wide(gradients(t))
            if s.filter is not None:
                g = self.filtered(s.filter, g, theta, "filter")
            if s.clip is not None:
                g = {name: x * min(1.0, s.clip / norm(g)) for name, x in g.items()}
            theta = {
                name: theta[name] - self.change(name, theta[name], g[name], t) for name in theta
            }
            if s.weight_norm is not None:
                theta = {
                    name: x * s.weight_norm * norm(self.start) / norm(theta)
                    for name, x in theta.items()
                }
        return theta

    def change(self, name: str, theta: np.ndarray, g: np.ndarray, t: int) -> np.ndarray:
        """What is taken off one array."""
        s = self.settings
        away = self.multiplier(name) * (
            theta - (self.start[name] if s.decay_to == "initial" else 0.0)
        )
        factor = min(t / s.warmup, 1.0) if s.warmup else 1.0
        if s.rate_schedule is not None:
            x = min(max((t - s.warmup) / (s.rate_schedule.steps - s.warmup), 0.0), 1.0)
            factor *= (
                s.rate_schedule.floor + (1 - s.rate_schedule.floor) * (1 + np.cos(np.pi * x)) / 2
            )
        match s:
            case SGD():
                direction = self.momentum(name, g + s.l2 * away) + s.weight_decay * away
            case Adam():
                direction = self.adam(name, g + s.l2 * away, t)
            case AdamW():
                direction = self.adam(name, g, t) + s.weight_decay * away
            case Muon() if any(fnmatchcase(name, pattern) for pattern in s.orthogonalized):
                direction = self.orthogonal(name, g, t) + s.weight_decay * away
            case _:
                return (
                    factor * s.adam_learning_rate * (self.adam(name, g, t) + s.weight_decay * away)
                )
        return factor * s.learning_rate * direction

    def multiplier(self, name: str) -> float:
        """How much of the decay an array takes."""
        s = self.settings
        if not any(fnmatchcase(name, pattern) for pattern in s.decayed):
            return 0.0
        return next((m for pattern, m in s.decay_multipliers if fnmatchcase(name, pattern)), 1.0)

    def average(self, kind: str, name: str, x: np.ndarray, beta: float) -> np.ndarray:
        """An exponential moving average from 0."""
        old = self.memory.setdefault(kind, {}).get(name, 0.0)
        self.memory[kind][name] = beta * old + (1 - beta) * x
        return self.memory[kind][name]

    def momentum(self, name: str, g: np.ndarray) -> np.ndarray:
        """Heavy-ball momentum, or Nesterov's."""
        s, held = self.settings, self.memory.setdefault("momentum", {})
        held[name] = s.momentum * held.get(name, 0.0) + g
        return g + s.momentum * held[name] if s.nesterov else held[name]

    def adam(self, name: str, g: np.ndarray, t: int) -> np.ndarray:
        """arXiv 1412.6980, algorithm 1."""
        s = self.settings
        m, v = self.average("m", name, g, s.b1), self.average("v", name, g * g, s.b2)
        return (m / (1 - s.b1 ** (t + 1))) / (np.sqrt(v / (1 - s.b2 ** (t + 1))) + s.eps)

    def orthogonal(self, name: str, g: np.ndarray, t: int) -> np.ndarray:
        """Jordan et al.'s iteration of the momentum, bias-corrected as optax does."""
        s, beta = self.settings, self.settings.momentum
        m = self.average("muon", name, g, beta)
        x = m / (1 - beta ** (t + 1))
        if s.nesterov:
            x = beta * m / (1 - beta ** (t + 2)) + (1 - beta) * g / (1 - beta ** (t + 1))
        rows, columns = x.shape
        x = x / (np.linalg.norm(x) + s.eps)
        for _ in range(s.iterations):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return np.sqrt(max(1.0, columns / rows)) * x

    def filtered(self, one: GradientFilter, g: Flat, theta: Flat, place: str) -> Flat:
        """A gradient after a filter."""
        if isinstance(one, InTurn):
            return self.filtered(
                one.second, self.filtered(one.first, g, theta, place + "1"), theta, place + "2"
            )
        if isinstance(one, OrthogonalGradient):
            left = {
                n: x - (x * theta[n]).sum() / (theta[n] ** 2).sum() * theta[n] for n, x in g.items()
            }
            return {
                n: x * (np.linalg.norm(g[n]) / np.linalg.norm(x) if one.rescaled else 1.0)
                for n, x in left.items()
            }
        if isinstance(one, GrokfastEMA):
            old = self.memory.get(place, g)
            self.memory[place] = {n: one.alpha * old[n] + (1 - one.alpha) * x for n, x in g.items()}
            return {n: x + one.lamb * self.memory[place][n] for n, x in g.items()}
        assert isinstance(one, GrokfastMA)
        self.seen.append(g)
        last = self.seen[-one.window :]
        if one.begin == "full" and len(last) < one.window:
            return g
        share = 1.0 if one.statistic == "sum" else 1 / len(last)
        return {n: x + one.lamb * share * sum(held[n] for held in last) for n, x in g.items()}
