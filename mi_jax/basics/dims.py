"""The closed vocabulary of dims, and the types of parameters, keys and scalars."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

Params: TypeAlias = PyTree[Float[Array | np.ndarray, "..."]]
"""Parameters: a nested dict of arrays. Its dotted names follow TransformerLens."""

PRNGKey: TypeAlias = Key[Array, ""]
"""A JAX random key."""
Scalar: TypeAlias = Float[Array, ""]
"""A float array without axes."""
Number: TypeAlias = float | Float[Array, ""]
"""A numeric setting: a Python number outside a compiled program, traced inside one."""
Count: TypeAlias = int | np.integer | Int[Array | np.ndarray, ""]
"""A count, such as of steps: an int outside a compiled program, traced inside one."""

DIMS: Mapping[str, str] = {
    "seed": "label of the random seed that initialised the parameters and ordered the batches",
    "step": "optimizer updates done; 0 is the initialisation",
    "layer": "block of the model, from 0",
    "head": "attention head within its layer",
    "position": "place in the input sequence",
    "query": "position that attends",
    "key": "position that is attended to",
    "neuron": "unit of a hidden layer",
    "class": "possible answer of the task",
    "token": "symbol of the task's vocabulary",
    "frequency": "k in cos(2 pi k x / p), from 1 to p // 2",
    "direction": "vector in activation space",
    "irrep": "irreducible representation of a group",
    "mode": "singular or principal mode",
    "component": "part that a decomposition found",
    "feature": "unit of a dictionary",
    "parameter": "dotted name of an array of the model",
    "site": "named place in the forward pass",
    "edge": "link from a writer to a reader of the residual stream",
    "concept": "fact about an input that the task knows exactly",
    "split": "part of the data: train, test, ...",
    "condition": "variant of a measurement",
    "chain": "Markov chain of a sampler",
    "draw": "sample of a chain",
    "epsilon": "step size of a sampler",
    "n_beta": "examples times inverse temperature of a sampler",
    "state": "hidden state of a model of training",
    "step_other": "second step of a comparison",
    "head_other": "second head of a comparison",
    "token_other": "second token of a comparison",
    "slot": "input of a head that is composed with: query, key or value",
}
"""Meaning of every dim that a result may have. A dataset holds no other dims."""


def check_dims(name: str, dims: tuple[str, ...]) -> None:
    """Refuse dims outside the vocabulary.

    Args:
        name: the variable that has the dims, used in the error.
        dims: the dims to check.

    Raises:
        ValueError: if a dim is not in ``DIMS``.
    """
    unknown = [dim for dim in dims if dim not in DIMS]
    if unknown:
        raise ValueError(
            f"{name}: unknown dims {unknown}; a result's dims are among {sorted(DIMS)}"
        )
