"""Losses by position: cross-entropies in nats, squared error and hinge in units of their own."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.contracts import Loss


def exact_cross_entropy(
    logits: Float[Array, "*b class"], targets: Int[Array | np.ndarray, "*b"]
) -> Float[Array, "*b"]:
    """-log softmax(z)_y as softplus(logsumexp of the wrong logits - z_y), in nats.

    Equal to the usual form, and exact to a relative error of about (1 + |margin|) 2^-24, value and
    gradient, down to the smallest
    float32: the usual form bottoms out at 1.2e-7 and then drives slingshots.

    Args:
        logits: z. targets: y, a class; for what is none the loss is NaN.

    Example:
        >>> float(exact_cross_entropy(jnp.array([40.0, 0.0]), jnp.array(0)))  # the usual float32 form gives 0
        4.248354...e-18
    """
    known = (targets >= 0) & (targets < logits.shape[-1])
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=bool)
    correct = jnp.take_along_axis(logits, jnp.asarray(targets)[..., None], axis=-1)[..., 0]
    wrong = jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, logits), axis=-1)
    return jax.nn.softplus(wrong - jnp.where(known, correct, jnp.nan))


def usual_cross_entropy(
    logits: Float[Array, "*b class"], targets: Int[Array | np.ndarray, "*b"]
) -> Float[Array, "*b"]:
    """-log softmax(z)_y by the usual log-softmax, in nats: 0, with no gradient, once the margin
    passes about 17 in float32.

    Args:
        logits: z. targets: y, a class; for what is none the loss is NaN.
    """
    known = (targets >= 0) & (targets < logits.shape[-1])
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(logits), jnp.asarray(targets)[..., None], axis=-1
    )[..., 0]
    return -jnp.where(known, chosen, jnp.nan)


def stablemax_logits(logits: Float[Array, "*b class"]) -> Float[Array, "*b class"]:
    """log s(z), s(z) = z + 1 for z >= 0 and 1 / (1 - z) below: sign(z) log(1 + |z|), whose softmax
    is StableMax.

    Its derivative 1 / (1 + |z|) holds at 0 too.
    """
    # Each branch sees 0 where the other holds: no logarithm of a negative number, and one
    # derivative at 0.
    positive = logits >= 0
    return jnp.where(
        positive,
        jnp.log1p(jnp.where(positive, logits, 0)),
        -jnp.log1p(jnp.where(positive, 0, -logits)),
    )


def signs(targets: Int[Array | np.ndarray, "*b"]) -> Float[Array, "*b"]:
    """-1 for class 0, 1 for class 1, NaN for what is neither: the labels of a network with one
    output.
    """
    targets = jnp.asarray(targets)
    return jnp.where((targets == 0) | (targets == 1), 2.0 * targets - 1.0, jnp.nan)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy over all of the model's outputs, exact in float32 (see
    ``exact_cross_entropy``).
    """

    units: ClassVar[str] = "nats"

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read, in nats."""
        return exact_cross_entropy(outputs, targets)


@dataclass(frozen=True)
class LogSoftmaxCrossEntropy(Loss):
    """Cross-entropy by the usual float32 log-softmax: softmax collapse and slingshots are
    reproduced with it, nothing else is.

    See ``usual_cross_entropy`` for where it stops; ``CrossEntropy`` is the same quantity without
    that end (arXiv 2501.04697).
    """

    units: ClassVar[str] = "nats"

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read, in nats."""
        return usual_cross_entropy(outputs, targets)


@dataclass(frozen=True)
class StableMax(Loss):
    """-log(s(z)_y / sum_c s(z)_c), s(z) = z + 1 for z >= 0 and 1 / (1 - z) below (arXiv
    2501.04697).

    Computed as a cross-entropy of log s(z), which is finite for every finite z.

    Attributes:
        exact: whether that cross-entropy is the exact one; by default the usual one, as published.
    """

    exact: bool = False

    units: ClassVar[str] = "nats"

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read, in nats."""
        return (exact_cross_entropy if self.exact else usual_cross_entropy)(
            stablemax_logits(outputs), targets
        )


@dataclass(frozen=True)
class MSE(Loss):
    """Squared error to the one-hot answer, mean over the outputs: 1/C sum_c (z_c - [c = y])^2
    (arXiv 2301.02679, 2310.13061).

    Outputs of 0 cost 1/C. A network with one output is compared with -1 for class 0 and 1 for class
    1: (z - (2 y - 1))^2.
    """

    units: ClassVar[str] = "squared error"

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read."""
        classes = outputs.shape[-1]
        if classes == 1:
            return jnp.square(outputs[..., 0] - signs(targets))
        known = (targets >= 0) & (targets < classes)
        squares = jnp.square(outputs - jax.nn.one_hot(targets, classes, dtype=outputs.dtype)).mean(
            axis=-1
        )
        return jnp.where(known, squares, jnp.nan)


@dataclass(frozen=True)
class Hinge(Loss):
    """max(0, 1 - margin); the margin of several outputs is z_y - max of the others, that of one
    output (2 y - 1) z.

    The second is that of arXiv 2207.08799 and 2303.11873 (classes 0 and 1 are -1 and 1), the first
    its form for more classes: a network with two outputs whose difference is z has the same loss.
    """

    units: ClassVar[str] = "hinge"

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read."""
        classes = outputs.shape[-1]
        if classes == 1:
            return _hinged(signs(targets) * outputs[..., 0])
        known = (targets >= 0) & (targets < classes)
        chosen = jax.nn.one_hot(targets, classes, dtype=bool)
        right = jnp.where(chosen, outputs, 0).sum(axis=-1)
        wrong = jnp.where(chosen, -jnp.inf, outputs).max(axis=-1)
        return _hinged(jnp.where(known, right - wrong, jnp.nan))


def _hinged(margin: Float[Array, "*b"]) -> Float[Array, "*b"]:
    return jnp.maximum(0, 1 - margin)


LOSSES = {
    "cross_entropy": CrossEntropy,
    "log_softmax_cross_entropy": LogSoftmaxCrossEntropy,
    "stablemax": StableMax,
    "mse": MSE,
    "hinge": Hinge,
}
"""Every loss by registry name."""
