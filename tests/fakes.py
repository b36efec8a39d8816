"""A model that returns the tables it is given as parameters, and the context to read it with:
measures without a network.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.contracts import Context, Loss, Model, Reference, Roles, Site, Task
from mi_jax.measures import MEASURES
from mi_jax.models.taps import Tapped
from mi_jax.training.losses import CrossEntropy

_NEURONS = Site("neurons", "neurons[a, b]", ("batch", "position", "neuron"))


def _apply(params: Any, inputs: Any, *, taps: Any = None, positions: Any = None) -> jax.Array:
    """Entries [a, b] of the tables at the last position, which is read; NaN at the others."""
    tapped = Tapped(taps, (_NEURONS,))
    rows = range(inputs.shape[1]) if positions is None else positions

    def spread(table: jax.Array) -> jax.Array:
        here = table[inputs[:, 0], inputs[:, 1]]
        return jnp.stack(
            [here if row == inputs.shape[1] - 1 else jnp.full_like(here, jnp.nan) for row in rows],
            axis=1,
        )

    if "neurons" in params:
        tapped.at("neurons", spread(params["neurons"]))
    return spread(params["logits"] if "logits" in params else params["neurons"])


FAKE = Model(
    init=lambda key: {},
    apply=_apply,
    roles=Roles(
        embedding=(lambda params: params["W_E"],),
        output_map=lambda params: params["W_L"],
        neurons="neurons",
    ),
    sites=(_NEURONS,),
)
"""Parameters: logits [a b output], neurons [a b neuron], W_E [token d], W_L [neuron class],
whichever a measure asks for.
"""


def tables(**arrays: Any) -> dict[str, jax.Array]:
    """Float32 parameters of FAKE."""
    return {name: jnp.asarray(np.asarray(array), jnp.float32) for name, array in arrays.items()}


def context_of(
    task: Task,
    *,
    model: Model = FAKE,
    final: Any = None,
    keys: Iterable[int] | None = None,
    loss: Loss | None = None,
) -> Context:
    """What a measure reads with; key frequencies are those given, or what measures freeze from the
    final parameters.
    """
    evaluation = task.evaluation(task.data(0), jax.random.key(0))
    context = Context(
        batches=dict(evaluation.batches),
        ground_truth=dict(evaluation.ground_truth),
        reference=Reference(final=final),
        prepared={},
        model=model,
        inputs=task.inputs,
        read=task.read,
        loss=loss or CrossEntropy(),
    )
    if keys is not None:
        mask = jnp.zeros(task.inputs.classes // 2, bool).at[jnp.array(sorted(keys)) - 1].set(True)
        return dataclasses.replace(context, prepared={"final_key_frequencies": mask})
    if final is not None:
        recipes = MEASURES["restricted_loss"].prepare
        return dataclasses.replace(
            context,
            prepared={name: recipe(context.reference, context) for name, recipe in recipes.items()},
        )
    return context


def read(name: str, params: Any, context: Context) -> np.ndarray:
    """One measure, as the runner reads it."""
    return np.asarray(MEASURES[name].read(params, context)[name])
