"""A sparse parity and an MLP for it, written as a user would: a custom task, and a custom model
made of two functions.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mi_jax import Experiment
from mi_jax.contracts import Architecture, Batch, Evaluation, Feed, Inputs, Model, Task
from mi_jax.training import AdamW, at

N, K, WIDTH, BATCH = 40, 3, 100, 32
RATE, DECAY = 1e-2, 1e-2


@dataclass(frozen=True)
class Parity(Task):
    """Sparse parity: whether an odd number of the first k of n signs is negative; fresh examples at
    every step.
    """

    n: int = N
    k: int = K
    batch: int = BATCH

    @property
    def inputs(self) -> Inputs:
        return Inputs("floats", vocabulary=0, positions=self.n, classes=2, alphabet=())

    @property
    def read(self) -> tuple[int, ...]:
        return (0,)

    def data(self, seed: int) -> Any:
        return {}

    def batches(self, data: Any, key: Any, start: Any, n: Any) -> Feed:
        return lambda i: self._examples(jax.random.fold_in(key, start + i), self.batch)

    def evaluation(self, data: Any, key: Any) -> Evaluation:
        return Evaluation({"test": self._examples(key, 4096)}, {})

    def _examples(self, key: Any, size: int) -> Batch:
        x = jax.random.rademacher(key, (size, self.n), jnp.float32)
        answers = (x[:, : self.k].prod(axis=1) < 0).astype(jnp.int32)
        return Batch(x, answers[:, None], jnp.ones((size, 1)))


@dataclass(frozen=True)
class SignMLP(Architecture):
    """One hidden layer of ReLUs on a vector of signs."""

    width: int = WIDTH

    def build(self, inputs: Inputs) -> Model:
        def init(key: Any) -> Any:
            first, second = jax.random.split(key)
            W, U = (
                jax.random.normal(first, (inputs.positions, self.width)),
                jax.random.normal(second, (self.width, inputs.classes)),
            )
            return {
                "W": W / inputs.positions**0.5,
                "b": jnp.zeros(self.width),
                "U": U / self.width**0.5,
                "c": jnp.zeros(inputs.classes),
            }

        def apply(
            params: Any, x: jax.Array, *, taps: Any = None, positions: Any = None
        ) -> jax.Array:
            hidden = jax.nn.relu(x @ params["W"] + params["b"][None])
            return (hidden @ params["U"] + params["c"][None])[:, None]

        return Model(init, apply)


def experiment(seeds: int) -> Experiment:
    """The experiment with this number of seeds."""
    optimizer = AdamW(learning_rate=RATE, weight_decay=DECAY, b2=0.999)
    return Experiment(
        Parity(),
        SignMLP(),
        optimizer=optimizer,
        steps=4_000,
        schedule=at(0, 4_000),
        seeds=tuple(range(seeds)),
    )
