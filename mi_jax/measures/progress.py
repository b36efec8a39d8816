"""Progress measures of modular addition: the logits with the key frequencies alone, and without
them (arXiv 2301.05217).

For a frequency k let c_k and s_k be the unit vectors along cos and sin of 2 pi k (a o b) / p over
the pairs (a, b), and L [pair class] the logits over the task's classes. P_k L = c_k (c_k^T L) + s_k
(s_k^T L) is what L holds of k.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import shared, table_answers, table_logits, table_split
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, answer_components, key_mask, of_answers

Keys = Literal["final", "online"]

_CONCEPTS = ("table", "answer", "cyclic_answer")
_FREQUENCIES = {"ground_truth": _CONCEPTS, "source": SOURCE}
"""What measures of all frequencies need."""


def _frozen(keys: Keys) -> dict[str, Any]:
    """What measures of the key frequencies need: those of the final model, or of the checkpoint
    itself.
    """
    online = {"roles": ("output_map",), "options": {"keys": keys, "table": "W_L"}, **_FREQUENCIES}
    return (
        online
        if keys == "online"
        else {
            **online,
            "uses": frozenset({"final"}),
            "prepare": FINAL_KEYS,
            "null": "other_frequencies",
        }
    )


def _suffix(keys: Keys) -> str:
    return "" if keys == "final" else "_online"


def _flat_logits(params: Params, context: Context) -> Float[Array, "pair class"]:
    return table_logits(params, context).reshape(-1, context.inputs.classes)


def _keys(params: Params, context: Context, keys: Keys) -> Bool[Array, " frequency"]:
    return (
        context.prepared["final_key_frequencies"] if keys == "final" else key_mask(params, context)
    )


def component_mask(keys: Bool[Array, " frequency"], p: int) -> Float[Array, " component"]:
    """1 at the cosine and sine of each key frequency, 0 elsewhere; the constant is left out."""
    return jnp.repeat(keys, 2)[: p - 1].astype(jnp.float32)


def key_part(
    table: Float[Array, "pair unit"], keys: Bool[Array, " frequency"], context: Context
) -> Float[Array, "pair unit"]:
    """sum of P_k over the key frequencies, of logits or of anything else that depends on the pair."""
    return _kept(answer_components(table, context), keys, context)


def _kept(
    components: Float[Array, "component unit"], keys: Bool[Array, " frequency"], context: Context
) -> Float[Array, "pair unit"]:
    kept = component_mask(keys, context.inputs.classes)[:, None] * components
    return of_answers(kept, context)[context.ground_truth["cyclic_answer"].ravel()]


@shared
def logit_components(params: Params, context: Context) -> Float[Array, "component class"]:
    """c_k^T L and s_k^T L for every frequency."""
    return answer_components(_flat_logits(params, context), context)


@shared
def key_logits(params: Params, context: Context, keys: Keys) -> Float[Array, "pair class"]:
    """sum of P_k L over the key frequencies."""
    return _kept(logit_components(params, context), _keys(params, context, keys), context)


def _loss(logits: Float[Array, "pair class"], context: Context) -> Float[Array, " pair"]:
    return context.loss(logits[:, None, :], table_answers(context).reshape(-1, 1))[:, 0]


def restricted_loss(split: str | None = None, keys: Keys = "final") -> Measure:
    """Loss of sum_k P_k L + mean over all pairs of L: the key frequencies and each class's mean,
    nothing else.

    Args:
        split: the pairs that the loss is averaged over; None is all of them. The paper doesn't say;
            its code has all and train.
        keys: the final model's key frequencies (retrospective, as published), or those of the
            checkpoint itself (online).
    """

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        kept = key_logits(params, context, keys) + logits.mean(axis=0, keepdims=True)
        losses = _loss(kept, context)
        return losses.mean() if split is None else losses[table_split(context, split)].mean()

    name = "restricted_loss" + (f"_{split}" if split else "") + _suffix(keys)
    return Measure(name, function, units="loss", **_frozen(keys))


def excluded_loss(keys: Keys = "final") -> Measure:
    """Loss on the training pairs of L - sum_k P_k L: everything but the key frequencies; no mean is
    added or taken away.

    Args:
        keys: as in ``restricted_loss``.
    """

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        without = logits - key_logits(params, context, keys)
        return _loss(without, context)[table_split(context, "train")].mean()

    return Measure(f"excluded_loss{_suffix(keys)}", function, units="loss", **_frozen(keys))


def excluded_loss_by_frequency() -> Measure:
    """Loss on the training pairs of L - P_k L, for every frequency k alone."""

    def function(params: Params, context: Context) -> Float[Array, " frequency"]:
        logits, p = _flat_logits(params, context), context.inputs.classes
        train = table_split(context, "train")
        trained, answers = logits[train], table_answers(context).reshape(-1)[train]
        cyclic = context.ground_truth["cyclic_answer"].ravel()[train]
        held = by_frequency(logit_components(params, context), frequencies(p))
        waves = by_frequency(jnp.asarray(fourier_basis(p))[1:], frequencies(p)) / jnp.sqrt(p)

        def one(k: Int[Array, ""]) -> Scalar:
            removed = (waves[k].T @ held[k])[cyclic]
            return context.loss((trained - removed)[:, None, :], answers[:, None]).mean()

        return jax.lax.map(one, jnp.arange(frequencies(p)))

    return Measure(
        "excluded_loss_by_frequency", function, ("frequency",), units="loss", **_FREQUENCIES
    )


def excluded_loss_3d(keys: Keys = "final") -> Measure:
    """Loss on the training pairs of L - sum_k <C_k, L> C_k over the key frequencies, C_k =
    cos(w_k(a o b - c)) of unit norm.
    """

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        p = context.inputs.classes
        basis = jnp.asarray(fourier_basis(p))[1:]
        coefficients = by_frequency(
            (logit_components(params, context) * basis).sum(axis=1), frequencies(p)
        )
        parts = by_frequency(jnp.ones(p - 1), frequencies(p)).sum(axis=1, keepdims=True)
        shared = jnp.broadcast_to(
            coefficients.sum(axis=1, keepdims=True) / parts, coefficients.shape
        )
        each = (shared * _keys(params, context, keys)[:, None]).reshape(-1)[: p - 1]
        without = (
            logits
            - of_answers(each[:, None] * basis, context)[
                context.ground_truth["cyclic_answer"].ravel()
            ]
        )
        return _loss(without, context)[table_split(context, "train")].mean()

    return Measure(f"excluded_loss_3d{_suffix(keys)}", function, units="loss", **_frozen(keys))


def cos_explained(params: Params, context: Context) -> Float[Array, " frequency"]:
    """||projection of L on C_k||^2 for C_k = cos(2 pi k (a o b - c) / p), which are orthogonal to
    one another.

    C_k is the sum of c_k x (row cos k of F) and s_k x (row sin k of F), up to a factor, both of
    unit norm: the projection gives both the mean of L's coefficients on them.
    """
    p = context.inputs.classes
    coefficients = by_frequency(
        (logit_components(params, context) * fourier_basis(p)[1:]).sum(axis=1), frequencies(p)
    )
    parts = by_frequency(jnp.ones(p - 1), frequencies(p)).sum(axis=1)
    return coefficients.sum(axis=1) ** 2 / parts


def cos_coefficients() -> Measure:
    """Least-squares coefficients alpha_k of L on cos(2 pi k (a o b - c) / p), for every frequency."""

    def function(params: Params, context: Context) -> Float[Array, " frequency"]:
        p = context.inputs.classes
        inner = (logit_components(params, context) * fourier_basis(p)[1:]).sum(axis=1)
        # <C_k, L> = p sqrt(p) / 2 (c_k^T L F_cos + s_k^T L F_sin) and <C_k, C_k> = p^3 / 2; both
        # double without a sine.
        return by_frequency(inner, frequencies(p)).sum(axis=1) / (p * jnp.sqrt(p))

    return Measure("cos_coefficients", function, ("frequency",), **_FREQUENCIES)


def logit_fve_by_frequency() -> Measure:
    """The share of ||L - mean L||^2 that cos(2 pi k (a o b - c) / p) explains, for every frequency."""

    def function(params: Params, context: Context) -> Float[Array, " frequency"]:
        logits = _flat_logits(params, context)
        return cos_explained(params, context) / jnp.square(logits - logits.mean()).sum()

    return Measure("logit_fve_by_frequency", function, ("frequency",), **_FREQUENCIES)


def logit_fve(keys: Keys = "final") -> Measure:
    """1 - ||L - mean L - sum_k alpha_k C_k||^2 / ||L - mean L||^2 over the key frequencies, alpha_k
    by least squares.

    The share of the logits that cosines of a o b - c explain. C_k has mean zero; the mean of L is
    the global one.
    """

    def function(params: Params, context: Context) -> Scalar:
        logits = _flat_logits(params, context)
        explained = (cos_explained(params, context) * _keys(params, context, keys)).sum()
        return explained / jnp.square(logits - logits.mean()).sum()

    return Measure(f"logit_fve{_suffix(keys)}", function, **_frozen(keys))
