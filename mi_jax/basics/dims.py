"""The names that arrays go by: the closed vocabulary of dims, and the types of parameters and
scalars.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

Params: TypeAlias = PyTree[Float[Array | np.ndarray, "..."]]
"""A plain nested dict of arrays with string keys; its dotted names are TransformerLens's."""

PRNGKey: TypeAlias = Key[Array, ""]
Scalar: TypeAlias = Float[Array, ""]
Number: TypeAlias = float | Float[Array, ""]
"""A setting: a Python number outside a compiled program, traced inside one."""
Count: TypeAlias = int | np.integer | Int[Array | np.ndarray, ""]
"""A number of steps: a Python int outside a compiled program, traced inside one."""

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
"""Every dim that a result may carry, with what it counts. Nothing else is allowed in a dataset."""


def check_dims(name: str, dims: tuple[str, ...]) -> None:
    """Refuses a dim outside the vocabulary. Raises ValueError naming the variable and the allowed
    dims.
    """
    unknown = [dim for dim in dims if dim not in DIMS]
    if unknown:
        raise ValueError(
            f"{name}: unknown dims {unknown}; a result's dims are among {sorted(DIMS)}"
        )


def to_numpy(tree: Any) -> Any:
    """The same pytree with every array as a NumPy array on the host."""
    return jax.tree.map(np.asarray, tree)
