"""Paths from an input to the first hidden layer of an MLP.

An input is a pair of one-hot tokens, a pair of embedded tokens, or a vector of floats.

Dimension letters: b batch, s position, n tokens, d columns of an embedding, N neurons.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Inputs
from mi_jax.models.products import lookup, matmul
from mi_jax.models.taps import Tapped

Embedding = Literal["one_hot", "two", "shared"]
Combination = Literal["concat", "sum"]

Shape = tuple[int, ...]
Table = Callable[[Params], Any]


class Entry(NamedTuple):
    """The path from the inputs to the pre-activations of the first hidden layer."""

    parameters: dict[str, tuple[Shape, int]]
    """By dotted name, the shape and the number of rows summed, which sets the initial spread."""
    pre: Callable[[Any, Any, Tapped], Float[Array, "b 1 N"]]
    """(params, inputs, taps) -> pre-activations of the first layer, without the bias."""
    bias: str
    """Dotted name of the first layer's bias."""
    embedding: tuple[Table, ...] = ()
    """The role ``embedding``; see ``Roles``."""
    neuron_inputs: tuple[Table, ...] = ()
    """The role ``neuron_inputs``, where the model has one hidden layer."""
    input_map: Table | None = None
    """The role ``input_map``, where the model has one hidden layer."""
    embedded: str | None = None
    """The role ``embedded``."""


def pair_positions(inputs: Inputs, model: str) -> tuple[int, int]:
    """The two positions at which the tokens vary.

    Args:
        inputs: the task's inputs.
        model: the subject of the error message, as "A bilinear network".

    Returns:
        The positions of the first and of the second element.

    Raises:
        ConfigError: if the task does not have exactly two varying tokens.
    """
    if inputs.kind != "tokens" or len(inputs.varied) != 2:
        raise ConfigError(
            f"{model} reads a pair of tokens. This task has {len(inputs.varied)} varying positions"
            f" of {inputs.kind}. Choose another model or task."
        )
    first, second = inputs.varied
    return first, second


def one_hot_pair(inputs: Inputs, width: int) -> Entry:
    """The path W_a[a] + W_b[b]: one weight matrix times both one-hot tokens, concatenated."""
    n, positions, names = inputs.tokens, pair_positions(inputs, "An MLP"), ("embed_a", "embed_b")

    def pre(params: Any, tokens: Any, tapped: Tapped) -> Float[Array, "b 1 N"]:
        first, second = (
            tapped.product(f"{name}.W_E", tokens[:, position, None], params[name]["W_E"], lookup)
            for name, position in zip(names, positions, strict=True)
        )
        return first + second

    tables = tuple(table(name) for name in names)
    parameters = {f"{name}.W_E": ((n, width), 2 * n) for name in names}
    return Entry(parameters, pre, "embed.b", embedding=tables, neuron_inputs=tables)


def embedded_pair(inputs: Inputs, width: int, d: int, *, shared: bool, summed: bool) -> Entry:
    """The path x W_0, where x is made of the embeddings of a and b.

    Args:
        inputs: the task's inputs.
        width: neurons N of the first hidden layer.
        d: columns of each table.
        shared: whether both tokens are looked up in the same table.
        summed: whether x is the sum of both rows [d], or their concatenation [2 d].
    """
    n, positions = inputs.tokens, pair_positions(inputs, "An MLP")
    names = ("embed",) if shared else ("embed_a", "embed_b")
    rows = d if summed else 2 * d

    def pre(params: Any, tokens: Any, tapped: Tapped) -> Float[Array, "b 1 N"]:
        if shared:
            both = tapped.product(
                "embed.W_E", tokens[:, jnp.array(positions)], params["embed"]["W_E"], lookup
            )
            both = tapped.at("embed", both)
        else:
            looked_up = [
                tapped.product(
                    f"{name}.W_E", tokens[:, position, None], params[name]["W_E"], lookup
                )
                for name, position in zip(names, positions, strict=True)
            ]
            both = jnp.concatenate(looked_up, axis=1)
        x = both.sum(axis=1, keepdims=True) if summed else both.reshape(len(both), 1, rows)
        return tapped.product(
            "layers.0.W", tapped.at("input", x), params["layers"]["0"]["W"], matmul
        )

    def to_neurons(name: str, first: int) -> Table:
        return lambda params: params[name]["W_E"] @ params["layers"]["0"]["W"][first : first + d]

    # A dict, because both tokens share one map to the neurons where one table's rows are summed.
    maps = {(names[i % len(names)], 0 if summed else i * d): None for i in range(2)}
    parameters = {f"{name}.W_E": ((n, d), d) for name in names}
    parameters["layers.0.W"] = (rows, width), rows
    return Entry(
        parameters,
        pre,
        "layers.0.b",
        embedding=tuple(table(name) for name in names),
        neuron_inputs=tuple(to_neurons(name, first) for name, first in maps),
        embedded="embed" if shared and positions == tuple(range(inputs.positions)) else None,
    )


def features(inputs: Inputs, width: int) -> Entry:
    """The path x W_0 of a vector x of floats."""
    count = feature_count(inputs, "An MLP")

    def pre(params: Any, x: Any, tapped: Tapped) -> Float[Array, "b 1 N"]:
        check_features(x, count)
        return tapped.product(
            "layers.0.W", tapped.at("input", x), params["layers"]["0"]["W"], matmul
        )

    return Entry(
        {"layers.0.W": ((count, width), count)},
        pre,
        "layers.0.b",
        input_map=lambda params: params["layers"]["0"]["W"],
    )


def feature_count(inputs: Inputs, model: str) -> int:
    """The number of features of the task's one vector of floats.

    Args:
        inputs: the task's inputs.
        model: the subject of the error message, as "An MLP".

    Raises:
        ConfigError: if the task's inputs are not one vector of floats.
    """
    if inputs.kind != "floats" or inputs.positions != 1 or inputs.features < 1:
        raise ConfigError(
            f"{model} reads one vector of floats with at least 1 feature. This task has"
            f" {inputs.positions} positions of {inputs.kind} with {inputs.features} features."
            " Choose another model or task."
        )
    return inputs.features


def check_features(x: Any, count: int) -> None:
    """Raises ConfigError unless ``x`` has the shape [batch 1 feature] with ``count`` features."""
    if x.ndim != 3 or x.shape[1:] != (1, count):
        raise ConfigError(
            f"Inputs have the wrong shape {x.shape}. Give [batch 1 feature] with {count} features."
        )


def table(name: str) -> Table:
    """The function params -> embedding table W_E of that name."""
    return lambda params: params[name]["W_E"]


def output_count(outputs: int | None, inputs: Inputs) -> int:
    """The number of outputs of a model: ``outputs``, or the task's classes if that is None.

    Raises:
        ConfigError: if that many outputs cannot distinguish the task's classes.
    """
    count = inputs.classes if outputs is None else outputs
    if count < inputs.classes and not (count == 1 and inputs.classes == 2):
        raise ConfigError(
            f"outputs={count} cannot distinguish the task's {inputs.classes} classes. Give at least"
            f" {inputs.classes} outputs, or 1 where there are two classes."
        )
    return count
