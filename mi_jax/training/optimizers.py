"""Optimizers: settings whose numbers are traced, so that other values compile nothing.

To add an optimizer, write a frozen dataclass that derives from ``Descent``, with a ``rule``, and
add a line to ``OPTIMIZERS``. The bounds of its numbers stand in its fields: ``momentum: float =
sweepable(0.0, minimum=0, below=1)``. An optimizer that shares nothing with ``Descent`` derives from
``contracts.Optimizer`` and calls ``check_bounds(self)`` when it is built.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from optax import contrib

from mi_jax.basics.dims import Count
from mi_jax.basics.errors import ConfigError, require
from mi_jax.basics.fields import Numbers, sweepable
from mi_jax.basics.pytrees import dotted, rebuild
from mi_jax.contracts import GradientTransformation
from mi_jax.training.decay import matching
from mi_jax.training.descent import Descent

_Transformations = tuple[optax.GradientTransformation, ...]


@dataclass(frozen=True)
class SGD(Descent):
    """Gradient descent: b <- momentum b + g; u = b, or g + momentum b with ``nesterov``.

    See ``Descent`` for the settings that all optimizers share.

    Example:
        >>> SGD(learning_rate=0.1, momentum=0.9).momentum
        0.9

    Attributes:
        learning_rate: the rate lr after warm-up.
        momentum: decay of the running sum of gradients; 0: none.
        weight_decay: decoupled decay: lr weight_decay theta is subtracted beside the gradient's
            part.
        l2: l2 theta is added to the gradient, before the momentum.
        nesterov: whether to use Nesterov's look-ahead.
    """

    learning_rate: float = sweepable(0.1, minimum=0)
    momentum: float = sweepable(0.0, minimum=0, below=1)
    weight_decay: float = sweepable(0.0, minimum=0)
    l2: float = sweepable(0.0, minimum=0)
    nesterov: bool = False

    def rule(self, numbers: Numbers, step: Count) -> _Transformations:
        """Chain of: L2, momentum, decay, rate."""
        return (
            self.decay(numbers["l2"]),
            optax.trace(numbers["momentum"], self.nesterov),
            self.decay(numbers["weight_decay"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class Adam(Descent):
    """Adam (arXiv 1412.6980): u = m / (sqrt(v) + eps). The decay ``l2`` is added to the gradient;
    ``AdamW`` decouples it.

    See ``Descent`` for the settings that all optimizers share.

    Attributes:
        l2: l2 theta is added to the gradient.
        b1: decay rate of the first moment m, beta_1 in the paper.
        b2: decay rate of the second moment v, beta_2 in the paper.
        eps: epsilon in the paper.
    """

    l2: float = sweepable(0.0, minimum=0)
    b1: float = sweepable(0.9, minimum=0, below=1)
    b2: float = sweepable(0.999, minimum=0, below=1)
    eps: float = sweepable(1e-8, minimum=0)

    def rule(self, numbers: Numbers, step: Count) -> _Transformations:
        """Chain of: L2, Adam, rate."""
        return (
            self.decay(numbers["l2"]),
            optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class AdamW(Descent):
    """Adam with decoupled decay: theta <- theta - lr (m / (sqrt(v) + eps) + weight_decay theta)
    (arXiv 1711.05101).

    The defaults are those of arXiv 2301.05217. See ``Descent`` for the settings that all optimizers
    share.

    Example:
        >>> AdamW(learning_rate=1e-3, weight_decay=1.0, warmup=10).warmup
        10

    Attributes:
        weight_decay: decoupled decay, multiplied by the learning rate.
        b1: decay rate of Adam's first moment m.
        b2: decay rate of Adam's second moment v.
        eps: Adam's epsilon.
    """

    weight_decay: float = sweepable(1.0, minimum=0)
    b1: float = sweepable(0.9, minimum=0, below=1)
    b2: float = sweepable(0.98, minimum=0, below=1)
    eps: float = sweepable(1e-8, minimum=0)

    def rule(self, numbers: Numbers, step: Count) -> _Transformations:
        """Chain of: Adam, decay, rate, as in ``optax.adamw``."""
        return (
            optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
            self.decay(numbers["weight_decay"]),
            optax.scale_by_learning_rate(self.rate(numbers["learning_rate"], step)),
        )


@dataclass(frozen=True)
class Muon(Descent):
    """Momentum, orthogonalised by Newton-Schulz iterations, for hidden matrices; AdamW for all
    other arrays.

    u = sqrt(max(1, columns / rows)) O(m), where O is the iteration of ``optax.contrib.muon``
    (Jordan et al. 2024, arXiv 2409.20325). With ``nesterov``, O acts on optax's bias-corrected
    look-ahead at the t-th update, beta m / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t) with
    m <- beta m + (1 - beta) g; Jordan's own code and ``torch.optim.Muon`` correct nothing, which
    changes the ratio of momentum and gradient in the first tens of updates.

    The last two axes of an array are the matrix; an array with more axes holds one matrix per index
    of the others, such as one per head. See ``Descent`` for the settings that all optimizers share.

    Attributes:
        learning_rate: the rate of the matrices, after warm-up.
        adam_learning_rate: the rate of all other arrays, after warm-up.
        weight_decay: decoupled decay of all parameters that decay, multiplied by their own rate.
        momentum: momentum of the matrices.
        b1: decay rate of Adam's first moment.
        b2: decay rate of Adam's second moment.
        eps: epsilon of Adam and of the iteration.
        nesterov: whether to use Nesterov's look-ahead.
        iterations: number of Newton-Schulz iterations.
        orthogonalized: patterns of the dotted names of the matrices: hidden ones, not embeddings
            and unembeddings.
    """

    learning_rate: float = sweepable(0.02, minimum=0)
    adam_learning_rate: float = sweepable(1e-3, minimum=0)
    weight_decay: float = sweepable(0.0, minimum=0)
    momentum: float = sweepable(0.95, minimum=0, below=1)
    b1: float = sweepable(0.9, minimum=0, below=1)
    b2: float = sweepable(0.98, minimum=0, below=1)
    eps: float = sweepable(1e-8, minimum=0)
    nesterov: bool = True
    iterations: int = 5
    orthogonalized: tuple[str, ...] = ("blocks.*.W_*",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.iterations >= 1, f"iterations={self.iterations}: must be at least 1.")
        require(
            len(self.orthogonalized) > 0,
            "orthogonalized is empty, which would be AdamW. Name the matrices, such as"
            " ('blocks.*.W_*',).",
        )

    def _labels(self, params: Any) -> Any:
        """The tree of labels "muon" and "adam", by which arrays are updated."""
        arrays = dotted(params)
        matrices = matching(self.orthogonalized, tuple(arrays), "orthogonalized")
        for name in sorted(matrices):
            if arrays[name].ndim < 2:
                raise ConfigError(
                    f"orthogonalized: '{name}' {list(arrays[name].shape)} is no matrix. Choose"
                    " patterns that match matrices alone."
                )
        return rebuild(params, {name: "muon" if name in matrices else "adam" for name in arrays})

    def rule(self, numbers: Numbers, step: Count) -> _Transformations:
        """Chain of: the rule of each array, decay, the rate of each array."""
        muon = contrib.scale_by_muon(
            ns_steps=self.iterations,
            beta=numbers["momentum"],
            eps=numbers["eps"],
            nesterov=self.nesterov,
            weight_dimension_numbers=lambda tree: jax.tree.map(
                lambda _: contrib.MuonDimensionNumbers(-2, -1), tree
            ),
        )
        by_shape = optax.stateless(
            lambda u, params: jax.tree.map(
                lambda x: max(1.0, x.shape[-1] / x.shape[-2]) ** 0.5 * x, u
            )
        )
        rules: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(muon, by_shape),
            "adam": optax.scale_by_adam(numbers["b1"], numbers["b2"], numbers["eps"]),
        }
        rates = {"muon": numbers["learning_rate"], "adam": numbers["adam_learning_rate"]}
        scales: dict[Hashable, optax.GradientTransformation] = {
            label: optax.scale_by_learning_rate(self.rate(rate, step))
            for label, rate in rates.items()
        }
        return (
            optax.partition(rules, self._labels),
            self.decay(numbers["weight_decay"]),
            optax.partition(scales, self._labels),
        )


OPTIMIZERS = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "muon": Muon,
}
"""The optimizers by registry name."""


def apply_gradients(
    transform: GradientTransformation, params: Any, opt_state: Any, gradients: Any
) -> tuple[Any, Any]:
    """One update of the parameters.

    Args:
        transform: the optimizer's rule at this step.
        params: the parameters before the update.
        opt_state: the optimizer's state before the update.
        gradients: the gradient at ``params``.

    Returns:
        The parameters after the update, and the optimizer's state after it.
    """
    updates, opt_state = transform.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: p + u, params, updates), opt_state
