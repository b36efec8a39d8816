"""Progress measures of modular addition: logits with the key frequencies only, and without them.

For a frequency k let c_k and s_k be the unit vectors along the cosine and sine of 2 pi k (a o b) /
p over the pairs (a, b), and L [pair class] the logits over the task's classes. The part of L at
frequency k is P_k L = c_k (c_k^T L) + s_k (s_k^T L) (arXiv 2301.05217).
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import check_choice
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.contracts import Context, Measure, option_suffix
from mi_jax.measures.evaluation import (
    pair_logits,
    pair_losses,
    shared,
    table_labels,
    table_split,
)
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, answer_components, key_mask, of_answers

Keys = Literal["final", "online"]

_FACTS = ("table", "answer", "cyclic_answer")
_ALL_FREQUENCIES = {"ground_truth": _FACTS, "source": SOURCE}
"""Requirements of measures of every frequency."""


def _key_measure(keys: Keys) -> dict[str, Any]:
    """Requirements of measures of the key frequencies, either the final model's or the
    checkpoint's own.
    """
    check_choice("keys", keys, get_args(Keys))
    online = {
        "roles": ("output_map",),
        "options": {"keys": keys, "table": "W_L"},
        **_ALL_FREQUENCIES,
    }
    if keys == "online":
        return online
    return {
        **online,
        "uses": frozenset({"final"}),
        "prepare": FINAL_KEYS,
        "null": "other_frequencies",
    }


def _suffix(keys: Keys, split: str | None = None) -> str:
    return option_suffix(
        {"split": split, "keys": keys},
        {"split": None, "keys": "final"},
        bare=("split", "keys"),
    )


def _keys(params: Params, context: Context, keys: Keys) -> Bool[Array, " frequency"]:
    if keys == "final":
        return context.prepared["final_key_frequencies"]
    return key_mask(params, context)


# --- Parts of a table over pairs


def component_mask(keys: Bool[Array, " frequency"], p: int) -> Float[Array, " component"]:
    """1 at the cosine and sine of each key frequency, 0 elsewhere; there is no constant."""
    return jnp.repeat(keys, 2)[: p - 1].astype(jnp.float32)


def key_part(
    table: Float[Array, "pair unit"], keys: Bool[Array, " frequency"], context: Context
) -> Float[Array, "pair unit"]:
    """Sum of P_k T over the key frequencies, for logits or any other table T over pairs."""
    return _from_key_components(answer_components(table, context), keys, context)


def _from_key_components(
    components: Float[Array, "component unit"], keys: Bool[Array, " frequency"], context: Context
) -> Float[Array, "pair unit"]:
    chosen = component_mask(keys, context.inputs.classes)[:, None] * components
    return of_answers(chosen, context)[context.ground_truth["cyclic_answer"].ravel()]


@shared
def logit_components(params: Params, context: Context) -> Float[Array, "component class"]:
    """c_k^T L and s_k^T L for every frequency k."""
    return answer_components(pair_logits(params, context), context)


@shared
def key_logits(params: Params, context: Context, keys: Keys) -> Float[Array, "pair class"]:
    """Sum of P_k L over the key frequencies."""
    return _from_key_components(
        logit_components(params, context), _keys(params, context, keys), context
    )


def _cosine_products(params: Params, context: Context) -> Float[Array, "frequency part"]:
    """c_k^T L F_cos,k and s_k^T L F_sin,k for every frequency k, F_cos,k and F_sin,k rows of F."""
    p = context.inputs.classes
    return by_frequency(
        (logit_components(params, context) * fourier_basis(p)[1:]).sum(axis=1), frequencies(p)
    )


# --- Losses


def restricted_loss(split: str | None = None, keys: Keys = "final") -> Measure:
    """Loss of logits that keep only the key frequencies of the answer.

    The loss of sum_k P_k L + (mean of L over all pairs, by class), k over the key frequencies. A
    value near the full loss means that the key frequencies suffice to explain the network.

    Args:
        split: the pairs over which the loss is averaged; None averages over all pairs. The paper
            does not say which; its code has both all pairs and "train". With label noise, "train"
            takes the labels that are trained on, and None the right answers.
        keys: "final" takes the key frequencies of the final model, which makes the measure
            retrospective, as published; "online" takes those of the checkpoint itself.

    Returns:
        A Measure with the scalar ``restricted_loss``, in the units of the run's loss; other options
        add a suffix to the name, as in ``restricted_loss_train_online``. It needs the role
        ``output_map`` and a task on all pairs with a cyclic answer.

    Raises:
        ConfigError: if ``keys`` is unknown.
    """

    def _restricted_loss(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        restricted = key_logits(params, context, keys) + logits.mean(axis=0, keepdims=True)
        if split is None:
            return pair_losses(restricted, context).mean()
        losses = pair_losses(restricted, context, table_labels(context))
        return losses[table_split(context, split)].mean()

    name = f"restricted_loss{_suffix(keys, split)}"
    return Measure(name, _restricted_loss, units="loss", **_key_measure(keys))


def excluded_loss(keys: Keys = "final") -> Measure:
    """Loss on the training pairs of logits without the key frequencies of the answer.

    The loss of L - sum_k P_k L, k over the key frequencies; no mean is added or subtracted. The
    labels are those of training, label noise included. The loss rises above the training loss as
    the network comes to rely on the key frequencies.

    Args:
        keys: "final" takes the key frequencies of the final model, which makes the measure
            retrospective, as published; "online" takes those of the checkpoint itself.

    Returns:
        A Measure with the scalar ``excluded_loss`` (``excluded_loss_online``), in the units of the
        run's loss. It needs the role ``output_map`` and a task on all pairs with a cyclic answer.

    Raises:
        ConfigError: if ``keys`` is unknown.
    """

    def _excluded_loss(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        without = logits - key_logits(params, context, keys)
        losses = pair_losses(without, context, table_labels(context))
        return losses[table_split(context, "train")].mean()

    return Measure(
        f"excluded_loss{_suffix(keys)}", _excluded_loss, units="loss", **_key_measure(keys)
    )


def excluded_loss_by_frequency() -> Measure:
    """Loss on the training pairs of logits without one frequency of the answer, by frequency.

    The loss of L - P_k L, with the labels of training, label noise included. A frequency whose
    exclusion raises the loss above the training loss is used by the network; the other values equal
    the training loss (arXiv 2301.05217).

    Returns:
        A Measure with ``excluded_loss_by_frequency`` of dims (frequency), in the units of the run's
        loss. It needs a task on all pairs with a cyclic answer.
    """

    def _excluded_loss_by_frequency(params: Params, context: Context) -> Float[Array, " frequency"]:
        logits, p = pair_logits(params, context), context.inputs.classes
        train = table_split(context, "train")
        trained, answers = logits[train], table_labels(context).reshape(-1)[train]
        cyclic = context.ground_truth["cyclic_answer"].ravel()[train]
        components = by_frequency(logit_components(params, context), frequencies(p))
        waves = by_frequency(jnp.asarray(fourier_basis(p))[1:], frequencies(p)) / jnp.sqrt(p)

        def loss_without(k: Int[Array, ""]) -> Scalar:
            removed = (waves[k].T @ components[k])[cyclic]
            return context.loss((trained - removed)[:, None, :], answers[:, None]).mean()

        return jax.lax.map(loss_without, jnp.arange(frequencies(p)))

    return Measure(
        "excluded_loss_by_frequency",
        _excluded_loss_by_frequency,
        ("frequency",),
        units="loss",
        **_ALL_FREQUENCIES,
    )


def excluded_loss_3d(keys: Keys = "final") -> Measure:
    """Loss on the training pairs of logits without the key cosines of a o b - c.

    The loss of L - sum_k <C_k, L> C_k, C_k = cos(w_k (a o b - c)) of unit norm over all (a, b, c),
    k over the key frequencies. The variant of ``excluded_loss`` that removes one direction per
    frequency instead of a plane; it is read in the same way, with the labels of training.

    Args:
        keys: "final" takes the key frequencies of the final model, which makes the measure
            retrospective; "online" takes those of the checkpoint itself.

    Returns:
        A Measure with the scalar ``excluded_loss_3d`` (``excluded_loss_3d_online``), in the units
        of the run's loss. It needs the role ``output_map`` and a task on all pairs with a cyclic
        answer.

    Raises:
        ConfigError: if ``keys`` is unknown.
    """

    def _excluded_loss_3d(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        p = context.inputs.classes
        basis = jnp.asarray(fourier_basis(p))[1:]
        products = _cosine_products(params, context)
        coefficients = jnp.broadcast_to(
            products.sum(axis=1, keepdims=True) / _parts(p)[:, None], products.shape
        )
        each = (coefficients * _keys(params, context, keys)[:, None]).reshape(-1)[: p - 1]
        cyclic = context.ground_truth["cyclic_answer"].ravel()
        without = logits - of_answers(each[:, None] * basis, context)[cyclic]
        losses = pair_losses(without, context, table_labels(context))
        return losses[table_split(context, "train")].mean()

    return Measure(
        f"excluded_loss_3d{_suffix(keys)}", _excluded_loss_3d, units="loss", **_key_measure(keys)
    )


# --- Cosines of a o b - c


def _parts(p: int) -> Float[Array, " frequency"]:
    """Waves per frequency: 2, or 1 if an even p has no sine."""
    return by_frequency(jnp.ones(p - 1), frequencies(p)).sum(axis=1)


def cos_explained(params: Params, context: Context) -> Float[Array, " frequency"]:
    """Squared norm of the projection of L on C_k = cos(2 pi k (a o b - c) / p), by frequency.

    The C_k are orthogonal to one another. Up to a factor C_k is the sum of c_k x (row cos k of F)
    and s_k x (row sin k of F), both of unit norm, so the projection gives both waves the mean of
    L's coefficients on them.
    """
    products = _cosine_products(params, context)
    return products.sum(axis=1) ** 2 / _parts(context.inputs.classes)


def cos_coefficients() -> Measure:
    """Coefficients of the logits on cos(2 pi k (a o b - c) / p), by frequency.

    alpha_k = <C_k, L> / <C_k, C_k>, the least-squares fit with C_k the cosine over all (a, b, c). A
    large coefficient means that the frequency votes strongly for the right class.

    Returns:
        A Measure with ``cos_coefficients`` of dims (frequency), in the units of the logits. It
        needs a task on all pairs with a cyclic answer (arXiv 2301.05217).
    """

    def _cos_coefficients(params: Params, context: Context) -> Float[Array, " frequency"]:
        p = context.inputs.classes
        # <C_k, L> = p sqrt(p) / 2 (c_k^T L F_cos + s_k^T L F_sin) and <C_k, C_k> = p^3 / 2. Both
        # double at a frequency without a sine, so their ratio stays the same.
        return _cosine_products(params, context).sum(axis=1) / (p * jnp.sqrt(p))

    return Measure("cos_coefficients", _cos_coefficients, ("frequency",), **_ALL_FREQUENCIES)


def logit_fve_by_frequency() -> Measure:
    """Share of the logits' variance that cos(2 pi k (a o b - c) / p) explains, by frequency.

    ||projection of L on C_k||^2 / ||L - mean L||^2, the mean over all entries of L. 1 means that
    the logits are this cosine alone (FVE: fraction of variance explained).

    Returns:
        A Measure with ``logit_fve_by_frequency`` of dims (frequency), shares from 0 to 1. It needs
        a task on all pairs with a cyclic answer (arXiv 2301.05217).
    """

    def _logit_fve_by_frequency(params: Params, context: Context) -> Float[Array, " frequency"]:
        logits = pair_logits(params, context)
        return cos_explained(params, context) / jnp.square(logits - logits.mean()).sum()

    return Measure(
        "logit_fve_by_frequency", _logit_fve_by_frequency, ("frequency",), **_ALL_FREQUENCIES
    )


def logit_fve(keys: Keys = "final") -> Measure:
    """Share of the logits' variance that the key cosines of a o b - c explain.

    1 - ||L - mean L - sum_k alpha_k C_k||^2 / ||L - mean L||^2, k over the key frequencies, alpha_k
    by least squares, the mean over all entries of L (each C_k has mean 0). 1 means that the logits
    are a sum of key cosines (FVE: fraction of variance explained).

    Args:
        keys: "final" takes the key frequencies of the final model, which makes the measure
            retrospective, as published; "online" takes those of the checkpoint itself.

    Returns:
        A Measure with the scalar ``logit_fve`` (``logit_fve_online``), a share from 0 to 1. It
        needs the role ``output_map`` and a task on all pairs with a cyclic answer.

    Raises:
        ConfigError: if ``keys`` is unknown.
    """

    def _logit_fve(params: Params, context: Context) -> Scalar:
        logits = pair_logits(params, context)
        explained = (cos_explained(params, context) * _keys(params, context, keys)).sum()
        return explained / jnp.square(logits - logits.mean()).sum()

    return Measure(f"logit_fve{_suffix(keys)}", _logit_fve, **_key_measure(keys))
