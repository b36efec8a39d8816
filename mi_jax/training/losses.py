"""Losses by position: cross-entropies in nats; squared error and hinge in their own units."""

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
    """Cross-entropy -log softmax(z)_y, in nats, computed as softplus(logsumexp_{c != y} z_c - z_y).

    Equal to the usual form in exact arithmetic. In float32, value and gradient have a relative
    error of about (1 + |margin|) 2^-24 down to the smallest number, whereas the usual form bottoms
    out at 1.2e-7 and then drives slingshots.

    Args:
        logits: z.
        targets: the class y; the loss is NaN if it is not a class.

    Example:
        >>> z = jnp.array([40.0, 0.0])  # the usual float32 form gives 0 here
        >>> float(exact_cross_entropy(z, jnp.array(0)))
        4.248354...e-18
    """
    valid = (targets >= 0) & (targets < logits.shape[-1])
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=bool)
    correct = jnp.take_along_axis(logits, jnp.asarray(targets)[..., None], axis=-1)[..., 0]
    wrong = jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, logits), axis=-1)
    # NaN for an invalid target: indexing would clip it to a class, and give a plausible number.
    return jax.nn.softplus(wrong - jnp.where(valid, correct, jnp.nan))


def usual_cross_entropy(
    logits: Float[Array, "*b class"], targets: Int[Array | np.ndarray, "*b"]
) -> Float[Array, "*b"]:
    """Cross-entropy -log softmax(z)_y by the usual log-softmax, in nats.

    In float32 it is 0, with no gradient, once the margin passes about 17.

    Args:
        logits: z.
        targets: the class y; the loss is NaN if it is not a class.
    """
    valid = (targets >= 0) & (targets < logits.shape[-1])
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(logits), jnp.asarray(targets)[..., None], axis=-1
    )[..., 0]
    return -jnp.where(valid, chosen, jnp.nan)


def stablemax_logits(logits: Float[Array, "*b class"]) -> Float[Array, "*b class"]:
    """Logits whose softmax is StableMax: log s(z) = sign(z) log(1 + |z|), where s(z) = z + 1 for
    z >= 0 and 1 / (1 - z) for z < 0.

    The derivative is 1 / (1 + |z|), at 0 as well.
    """
    # Each branch sees 0 where the other one applies: no logarithm of a negative number, whose NaN
    # would reach the gradient, and one derivative at 0.
    positive = logits >= 0
    return jnp.where(
        positive,
        jnp.log1p(jnp.where(positive, logits, 0)),
        -jnp.log1p(jnp.where(positive, 0, -logits)),
    )


def signs(targets: Int[Array | np.ndarray, "*b"]) -> Float[Array, "*b"]:
    """Labels of a network with one output: -1 for class 0, 1 for class 1, NaN for any other."""
    targets = jnp.asarray(targets)
    return jnp.where((targets == 0) | (targets == 1), 2.0 * targets - 1.0, jnp.nan)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy over all of the model's outputs, exact in float32: see
    ``exact_cross_entropy``. It takes two or more outputs, and at least one per class.
    """

    units: ClassVar[str] = "nats"

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether each class has an output, and another to be compared with."""
        return outputs >= max(classes, 2)

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Loss of every position that is read, in nats."""
        return exact_cross_entropy(outputs, targets)


@dataclass(frozen=True)
class LogSoftmaxCrossEntropy(Loss):
    """Cross-entropy by the usual float32 log-softmax, for reproducing softmax collapse and
    slingshots (arXiv 2501.04697).

    It becomes 0 at large margins: see ``usual_cross_entropy``. ``CrossEntropy`` is the same
    quantity without that floor; prefer it for everything else. It takes two or more outputs, one or
    more per class.
    """

    units: ClassVar[str] = "nats"

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether each class has an output, and another to be compared with."""
        return outputs >= max(classes, 2)

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Loss of every position that is read, in nats."""
        return usual_cross_entropy(outputs, targets)


@dataclass(frozen=True)
class StableMax(Loss):
    """StableMax cross-entropy -log(s(z)_y / sum_c s(z)_c), where s(z) = z + 1 for z >= 0 and
    1 / (1 - z) for z < 0 (arXiv 2501.04697).

    Computed as a cross-entropy of the logits log s(z), which are finite for every finite z. It
    takes two or more outputs, and at least one per class.

    Attributes:
        exact: whether to use ``exact_cross_entropy``; by default ``usual_cross_entropy``, as
            published.
    """

    exact: bool = False

    units: ClassVar[str] = "nats"

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether each class has an output, and another to be compared with."""
        return outputs >= max(classes, 2)

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Loss of every position that is read, in nats."""
        cross_entropy = exact_cross_entropy if self.exact else usual_cross_entropy
        return cross_entropy(stablemax_logits(outputs), targets)


@dataclass(frozen=True)
class MSE(Loss):
    """Squared error to the one-hot answer, averaged over the C outputs:
    1/C sum_c (z_c - [c = y])^2 (arXiv 2301.02679, 2310.13061).

    Outputs of 0 have the loss 1/C. With one output, the labels are -1 for class 0 and 1 for class
    1: (z - (2 y - 1))^2. It takes one output for two classes, or at least one per class.
    """

    units: ClassVar[str] = "squared error"

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether each class has an output, or one output tells two classes apart."""
        return _takes_one_or_each(outputs, classes)

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Loss of every position that is read."""
        classes = outputs.shape[-1]
        if classes == 1:
            return jnp.square(outputs[..., 0] - signs(targets))
        valid = (targets >= 0) & (targets < classes)
        answer = jax.nn.one_hot(targets, classes, dtype=outputs.dtype)
        squares = jnp.square(outputs - answer).mean(axis=-1)
        return jnp.where(valid, squares, jnp.nan)


@dataclass(frozen=True)
class Hinge(Loss):
    """Hinge loss max(0, 1 - margin).

    The margin is (2 y - 1) z for one output (arXiv 2207.08799, 2303.11873, where classes 0 and 1
    are -1 and 1), and z_y - max_{c != y} z_c for several. Two outputs whose difference is z have
    the loss of one output z. It takes one output for two classes, or at least one per class.
    """

    units: ClassVar[str] = "hinge"

    def takes(self, outputs: int, classes: int) -> bool:
        """Whether each class has an output, or one output tells two classes apart."""
        return _takes_one_or_each(outputs, classes)

    def __call__(
        self,
        outputs: Float[Array, "batch position class"],
        targets: Int[Array | np.ndarray, "batch position"],
    ) -> Float[Array, "batch position"]:
        """Loss of every position that is read."""
        classes = outputs.shape[-1]
        if classes == 1:
            return _hinged(signs(targets) * outputs[..., 0])
        valid = (targets >= 0) & (targets < classes)
        chosen = jax.nn.one_hot(targets, classes, dtype=bool)
        right = jnp.where(chosen, outputs, 0).sum(axis=-1)
        wrong = jnp.where(chosen, -jnp.inf, outputs).max(axis=-1)
        return _hinged(jnp.where(valid, right - wrong, jnp.nan))


def _takes_one_or_each(outputs: int, classes: int) -> bool:
    return outputs >= classes or (outputs == 1 and classes == 2)


def _hinged(margin: Float[Array, "*b"]) -> Float[Array, "*b"]:
    return jnp.maximum(0, 1 - margin)


LOSSES = {
    "cross_entropy": CrossEntropy,
    "log_softmax_cross_entropy": LogSoftmaxCrossEntropy,
    "stablemax": StableMax,
    "mse": MSE,
    "hinge": Hinge,
}
"""The losses by registry name."""
