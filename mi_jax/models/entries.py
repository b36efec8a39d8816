"""How an input reaches the first hidden layer of an MLP: a pair of one-hot tokens, a pair of
embedded ones, or float features.

Dimension letters: b batch, s position, n tokens, d columns of an embedding, N neurons.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.errors import require
from mi_jax.contracts import Inputs
from mi_jax.models.products import lookup, matmul
from mi_jax.models.taps import Tapped

Embedding = Literal["one_hot", "two", "shared"]
Combination = Literal["concat", "sum"]

Shape = tuple[int, ...]
Table = Callable[[Params], Any]


class Entry(NamedTuple):
    """The way from the inputs to the first hidden layer."""

    parameters: dict[str, tuple[Shape, int]]
    """By dotted name, the shape and how many rows are summed: what an initial spread goes by."""
    pre: Callable[[Any, Any, Tapped], Float[Array, "b 1 N"]]
    """(params, inputs, taps) -> the first layer's pre-activations, without its bias."""
    bias: str
    """The name of that bias."""
    embedding: tuple[Table, ...] = ()
    """See ``Roles``; so are the next three."""
    neuron_inputs: tuple[Table, ...] = ()
    input_map: Table | None = None
    embedded: str | None = None


def pair(inputs: Inputs, model: str) -> tuple[int, int]:
    """The two positions that vary. Raises ConfigError where the task has no such pair of tokens."""
    require(
        inputs.kind == "tokens" and len(inputs.varied) == 2,
        f"{model} reads a pair of tokens; the task has {len(inputs.varied)} varying positions of"
        f" {inputs.kind}",
    )
    first, second = inputs.varied
    return first, second


def one_hot_pair(inputs: Inputs, width: int) -> Entry:
    """W_a[a] + W_b[b]: the product of a weight with both one-hot tokens, one beside the other."""
    n, places, names = inputs.tokens, pair(inputs, "an mlp"), ("embed_a", "embed_b")

    def pre(params: Any, tokens: Any, tapped: Tapped) -> Float[Array, "b 1 N"]:
        first, second = (
            tapped.product(f"{name}.W_E", tokens[:, place, None], params[name]["W_E"], lookup)
            for name, place in zip(names, places, strict=True)
        )
        return first + second

    tables = tuple(table(name) for name in names)
    parameters = {f"{name}.W_E": ((n, width), 2 * n) for name in names}
    return Entry(parameters, pre, "embed.b", embedding=tables, neuron_inputs=tables)


def embedded_pair(inputs: Inputs, width: int, d: int, *, shared: bool, added: bool) -> Entry:
    """x W_0, x the rows of a and b in two tables or in a shared one, side by side or added."""
    n, places = inputs.tokens, pair(inputs, "an mlp")
    names = ("embed",) if shared else ("embed_a", "embed_b")
    rows = d if added else 2 * d

    def pre(params: Any, tokens: Any, tapped: Tapped) -> Float[Array, "b 1 N"]:
        if shared:
            both = tapped.product(
                "embed.W_E", tokens[:, jnp.array(places)], params["embed"]["W_E"], lookup
            )
            both = tapped.at("embed", both)
        else:
            each = zip(names, places, strict=True)
            looked_up = [
                tapped.product(f"{name}.W_E", tokens[:, at, None], params[name]["W_E"], lookup)
                for name, at in each
            ]
            both = jnp.concatenate(looked_up, axis=1)
        x = both.sum(axis=1, keepdims=True) if added else both.reshape(len(both), 1, rows)
        return tapped.product(
            "layers.0.W", tapped.at("input", x), params["layers"]["0"]["W"], matmul
        )

    def to_neurons(name: str, first: int) -> Table:
        return lambda params: params[name]["W_E"] @ params["layers"]["0"]["W"][first : first + d]

    # Where one table's rows are added, both tokens send the neurons the same.
    sent = {(names[i % len(names)], 0 if added else i * d): None for i in range(2)}
    return Entry(
        {**{f"{name}.W_E": ((n, d), d) for name in names}, "layers.0.W": ((rows, width), rows)},
        pre,
        "layers.0.b",
        embedding=tuple(table(name) for name in names),
        neuron_inputs=tuple(to_neurons(*one) for one in sent),
        embedded="embed" if shared and places == tuple(range(inputs.positions)) else None,
    )


def features(inputs: Inputs, width: int) -> Entry:
    """x W_0 of a vector of numbers."""
    count = feature_count(inputs, "an mlp")

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
    """How many features the one vector of floats has. Raises ConfigError where the task gives
    something else.
    """
    require(
        inputs.kind == "floats" and inputs.positions == 1 and inputs.features >= 1,
        f"{model} reads one vector of floats with at least 1 feature; the task has"
        f" {inputs.positions} positions of {inputs.kind} with {inputs.features} features",
    )
    return inputs.features


def check_features(x: Any, count: int) -> None:
    """Raises ConfigError for inputs that aren't [batch 1 feature] with that many features."""
    require(
        x.ndim == 3 and x.shape[1:] == (1, count),
        f"inputs of shape {x.shape}: [batch 1 feature] with {count} features is needed",
    )


def table(name: str) -> Table:
    """params -> the table of that name."""
    return lambda params: params[name]["W_E"]


def output_count(outputs: int | None, inputs: Inputs) -> int:
    """How many outputs a model has. Raises ConfigError where they can't tell the task's classes."""
    count = inputs.classes if outputs is None else outputs
    require(
        count >= inputs.classes or (count == 1 and inputs.classes == 2),
        f"outputs={count} can't tell the task's {inputs.classes} classes; give at least as many, or"
        " 1 for two classes",
    )
    return count
