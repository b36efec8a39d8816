"""Progress measures of modular addition: the logits with the key frequencies alone, and without them (arXiv 2301.05217).

For a frequency k let c_k and s_k be the unit vectors along cos and sin of 2 pi k (a o b) / p over the pairs (a, b), and L [pair
class] the logits over the task's classes. P_k L = c_k (c_k^T L) + s_k (s_k^T L) is what L holds of k.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.arrays import Params, Scalar
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_answers, table_logits, table_split
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, by_frequency, fourier_basis, frequencies

_NEEDS = {
    "roles": ("output_map",),
    "concepts": ("table", "answer", "cyclic_answer"),
    "uses": frozenset({"final"}),
    "prepare": FINAL_KEYS,
    "options": {"keys": "final", "table": "W_L"},
    "source": SOURCE,
}


def _flat_logits(params: Params, context: Context) -> Float[Array, "pair class"]:
    return table_logits(params, context).reshape(-1, context.inputs.classes)


def _keys(context: Context) -> Bool[Array, " frequency"]:
    return context.prepared["final_key_frequencies"]


def answer_directions(context: Context) -> Float[Array, "component pair"]:
    """The unit vectors c_1, s_1, c_2, s_2, ... over the pairs: rows of F looked up at a o b.

    Each answer is given by p pairs, so rows of F, of unit norm over residues, are divided by sqrt(p).
    """
    p = context.inputs.classes
    return jnp.asarray(fourier_basis(p))[1:, context.concepts["cyclic_answer"].ravel()] / jnp.sqrt(p)


def _component_mask(keys: Bool[Array, " frequency"], p: int) -> Float[Array, " component"]:
    return jnp.repeat(keys, 2)[: p - 1].astype(jnp.float32)


def key_part(logits: Float[Array, "pair class"], keys: Bool[Array, " frequency"], context: Context) -> Float[Array, "pair class"]:
    """sum of P_k L over the key frequencies."""
    directions = answer_directions(context) * _component_mask(keys, context.inputs.classes)[:, None]
    return directions.T @ (directions @ logits)


def _loss(logits: Float[Array, "pair class"], context: Context) -> Float[Array, " pair"]:
    return context.loss(logits[:, None, :], table_answers(context).reshape(-1, 1))[:, 0]


def restricted_loss() -> Measure:
    """Loss on all pairs of sum_k P_k L + mean over pairs of L: the key frequencies and each class's mean, nothing else."""

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        return _loss(key_part(logits, _keys(context), context) + logits.mean(axis=0, keepdims=True), context).mean()

    return Measure("restricted_loss", function, units="nats", **_NEEDS)


def excluded_loss() -> Measure:
    """Loss on the training pairs of L - sum_k P_k L: everything but the key frequencies; no mean is added or taken away."""

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        without = logits - key_part(logits, _keys(context), context)
        return _loss(without, context)[table_split(context, "train")].mean()

    return Measure("excluded_loss", function, units="nats", **_NEEDS)


def cos_explained(logits: Float[Array, "pair class"], context: Context) -> Float[Array, " frequency"]:
    """||projection of L on C_k||^2 for C_k = cos(2 pi k (a o b - c) / p), which are orthogonal to one another.

    C_k is the sum of c_k x (row cos k of F) and s_k x (row sin k of F), up to a factor, both of unit norm: the projection gives
    both the mean of L's coefficients on them.
    """
    p = context.inputs.classes
    coefficients = by_frequency(((answer_directions(context) @ logits) * fourier_basis(p)[1:]).sum(axis=1), frequencies(p))
    parts = by_frequency(jnp.ones(p - 1), frequencies(p)).sum(axis=1)
    return coefficients.sum(axis=1) ** 2 / parts


def logit_fve() -> Measure:
    """1 - ||L - mean L - sum_k alpha_k C_k||^2 / ||L - mean L||^2 over the key frequencies, alpha_k by least squares.

    The share of the logits that cosines of a o b - c explain. C_k has mean zero; the mean of L is the global one.
    """

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        explained = (cos_explained(logits, context) * _keys(context)).sum()
        return explained / jnp.square(logits - logits.mean()).sum()

    return Measure("logit_fve", function, **_NEEDS)
