"""Small networks of the twins: random and trained weights in float64, and their readings.

A twin is a plain float64 NumPy computation of a measure, written from the formula in its docstring.
"""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import context_of

from mi_jax.contracts import Context, Model, Reference, Roles, Shared, Site, batch_loss
from mi_jax.measures.fourier import FINAL_KEYS
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.models import MLP
from mi_jax.models.taps import Tapped
from mi_jax.tasks import ModularArithmetic

Operation = Literal["add", "subtract"]
Weights = Literal["random", "trained"]

CASES = [
    (p, operation, weights)
    for p in (2, 3, 4, 6, 12, 13)
    for operation in ("add", "subtract")
    for weights in ("random", "trained")
]
"""Modulus, operation and weights of every network that the twins read."""

ALWAYS = (
    (2, "add", "random"),
    (3, "subtract", "trained"),
    (4, "add", "trained"),
    (6, "subtract", "random"),
    (12, "add", "random"),
    (13, "subtract", "trained"),
)
"""The cases of every run of the tests: each modulus, operation and kind of weights. All cases are
read by make test-long.
"""

EACH = [pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.long) for case in CASES]
"""Every case, for a parametrised test."""

SPREAD = [
    pytest.param(*case, marks=() if case in ALWAYS[::2] else pytest.mark.long) for case in CASES
]
"""Every case, for programs that compile slowly: three of them in every run of the tests."""

RELATIVE = 1e-5
"""Difference that a twin allows, relative to the largest entry of the reading."""


class Network(NamedTuple):
    """Network h = (E_a[a] + E_b[b])^2, logits h U, with its final model and float64 arrays.

    Attributes:
        task: addition or subtraction, with label noise.
        params: the float32 parameters that are read.
        context: context with the final model's key frequencies.
        E_a: what the first element adds to the neurons, [token neuron].
        E_b: what the second element adds, [token neuron].
        U: what the neurons add to the logits, [neuron class].
        U_final: U of the final model.
    """

    task: ModularArithmetic
    params: Any
    context: Context
    E_a: np.ndarray
    E_b: np.ndarray
    U: np.ndarray
    U_final: np.ndarray

    @property
    def p(self) -> int:
        return self.task.p

    @property
    def answers(self) -> np.ndarray:
        """Right answer of every pair, in the order a p + b."""
        a, b = np.divmod(np.arange(self.p**2), self.p)
        return (a + b if self.task.operation == "add" else a - b) % self.p

    @property
    def trained(self) -> np.ndarray:
        """Pairs of the training split."""
        return self.task.order()[: self.task.trained]

    @property
    def labels(self) -> np.ndarray:
        """Class of every pair that its split counts as right: drawn labels on noisy pairs."""
        labels, noise = self.answers.copy(), self.task.noise()
        labels[self.trained[noise.corrupted]] = noise.labels[noise.corrupted]
        return labels

    @property
    def H(self) -> np.ndarray:
        """Activations of the neurons, [pair neuron]."""
        return ((self.E_a[:, None] + self.E_b[None, :]) ** 2).reshape(self.p**2, -1)

    @property
    def L(self) -> np.ndarray:
        """Logits, [pair class]."""
        return self.H @ self.U

    @property
    def keys(self) -> list[int]:
        """Key frequencies of the final model's readout."""
        return key_frequencies(self.U_final.T)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Values of some measures by variable, from a compiled program."""
        return read(names, self.params, self.context)


def read(names: tuple[str, ...], params: Any, context: Context) -> dict[str, np.ndarray]:
    """Values of measures of the registry by variable, from one compiled program."""
    values = _program(names)(params, context)
    return {variable: np.asarray(value) for variable, value in values.items()}


@lru_cache
def _program(names: tuple[str, ...]) -> Any:
    measures = [{**READINGS, **EXPENSIVE}[name] for name in names]

    def readings(params: Any, context: Context) -> dict[str, jax.Array]:
        context = dataclasses.replace(context, shared=Shared())
        return {
            variable: value
            for measure in measures
            for variable, value in measure.read(params, context).items()
        }

    return jax.jit(readings)


@lru_cache
def _model(p: int) -> Model:
    return MLP(width=16).build(ModularArithmetic(p=p, fraction=0.5).inputs)


@lru_cache
def network(p: int, operation: Operation, weights: Weights) -> Network:
    """The network of one case; its final model is always the trained one."""
    task = ModularArithmetic(
        p=p, operation=operation, fraction=0.6, split_seed=1, label_noise=0.2 if p > 3 else 0.5
    )
    model = _model(p)
    context = context_of(task, model=model)
    params = jax.tree.map(lambda x: 1.5 * x, model.init(jax.random.key(p)))
    final = fit(params, context, 0.3)
    context = dataclasses.replace(context, reference=Reference(final=final))
    prepared = {name: make(context.reference, context) for name, make in FINAL_KEYS.items()}
    context = dataclasses.replace(context, prepared=prepared)
    params = final if weights == "trained" else params
    E_a, E_b, U = (
        np.asarray(array, np.float64)
        for array in (
            params["embed_a"]["W_E"][:p],
            params["embed_b"]["W_E"][:p],
            params["unembed"]["W_U"],
        )
    )
    return Network(
        task, params, context, E_a, E_b, U, np.asarray(final["unembed"]["W_U"], np.float64)
    )


@partial(jax.jit, static_argnames="split")
def fit(params: Any, context: Context, rate: float, split: str = "train") -> Any:
    """Parameters after 300 steps of gradient descent on the loss of a split."""
    train = context.batches[split]

    def loss(params: Any) -> jax.Array:
        outputs = context.model.apply(params, train.inputs, positions=context.read)
        return batch_loss(context.loss, outputs, train)

    def step(_: Any, params: Any) -> Any:
        return jax.tree.map(lambda x, g: x - rate * g, params, jax.grad(loss)(params))

    return jax.lax.fori_loop(0, 300, step, params)


# --- Bilinear networks on embedded tokens


class Bilinear(NamedTuple):
    """Network x = E[token], logits ((x_a A) * (x_b B)) U on embedded tokens, in float64.

    Attributes:
        task: addition or subtraction.
        params: the float32 parameters E, A, B and U.
        context: context to read the network with.
        arrays: the same parameters in float64.
    """

    task: ModularArithmetic
    params: Any
    context: Context
    arrays: dict[str, np.ndarray]

    def logits(self, E: np.ndarray) -> np.ndarray:
        """Logits of all pairs with the embedding E [token d], [token token_other class]."""
        A, B, U = (self.arrays[name] for name in "ABU")
        return np.einsum("an,bn,nc->abc", E @ A, E @ B, U)

    def read(self, name: str) -> np.ndarray:
        """Values of a measure, from a compiled program."""
        return read((name,), self.params, self.context)[name]


_EMBEDDED = Site("embed", "E[token]", ("batch", "position", "d"))


def _apply(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
    tokens = Tapped(taps, (_EMBEDDED,)).at("embed", params["E"][inputs])
    product = (tokens[:, 0] @ params["A"]) * (tokens[:, 1] @ params["B"])
    return (product @ params["U"])[:, None]


@lru_cache
def _bilinear_model(p: int) -> Model:
    roles = Roles(embedding=(lambda params: params["E"][:p],), embedded="embed")
    return Model(lambda key: {}, _apply, roles=roles, sites=(_EMBEDDED,))


@lru_cache
def bilinear(p: int, operation: Operation, weights: Weights) -> Bilinear:
    """The bilinear network of one case, with components of variance that are well apart."""
    task = ModularArithmetic(p=p, operation=operation, fraction=0.6, split_seed=1)
    rng, d, width = np.random.default_rng(p), 14, 9
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (p, d))
    count = min(p, d)
    E = 3 * (left[:, :count] * 0.8 ** np.arange(count)) @ right[:, :count].T + rng.normal(size=d)
    E = np.concatenate([E, np.ones((1, d))])
    params = {
        name: jnp.asarray(array, jnp.float32)
        for name, array in {
            "E": E,
            "A": rng.normal(size=(d, width)) / 4,
            "B": rng.normal(size=(d, width)) / 4,
            "U": rng.normal(size=(width, p)) / width,
        }.items()
    }
    context = context_of(task, model=_bilinear_model(p))
    if weights == "trained":
        params = fit(params, context, 0.01)
    arrays = {name: np.asarray(array, np.float64) for name, array in params.items()}
    return Bilinear(task, params, context, arrays)


# --- Float64 formulas that several twins share


def waves(p: int, k: int) -> np.ndarray:
    """Unit vectors over the residues along cos and sin of 2 pi k x / p, [wave residue]."""
    angles = 2 * np.pi * k * np.arange(p) / p
    rows = [np.cos(angles)] if 2 * k == p else [np.cos(angles), np.sin(angles)]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def frequencies(p: int) -> range:
    """Every frequency, 1 to p // 2."""
    return range(1, p // 2 + 1)


def key_frequencies(table: np.ndarray) -> list[int]:
    """Frequencies with a wave whose norm exceeds a quarter of the largest one's."""
    p = len(table)
    norms = {k: np.linalg.norm(waves(p, k) @ table, axis=1).max() for k in frequencies(p)}
    return [k for k, norm in norms.items() if norm > max(norms.values()) / 4]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row in nats."""
    around = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(around).sum(axis=1)) - around[np.arange(len(labels)), labels]


def answer_waves(net: Network, k: int) -> np.ndarray:
    """Unit vectors over the pairs along cos and sin of 2 pi k (a o b) / p, [wave pair]."""
    return waves(net.p, k)[:, net.answers] / np.sqrt(net.p)


def along_keys(net: Network, table: np.ndarray, keys: Iterable[int]) -> np.ndarray:
    """Sum of P_k T over some frequencies k, for a table T over pairs."""
    part = np.zeros_like(table)
    for k in keys:
        W = answer_waves(net, k)
        part += W.T @ (W @ table)
    return part


def assert_twin(read: np.ndarray, expected: Any, name: str = "") -> None:
    """Compare a reading with its twin, relative to the twin's largest entry."""
    expected = np.asarray(expected, np.float64)
    largest = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(read, expected, rtol=0, atol=RELATIVE * largest, err_msg=name)
