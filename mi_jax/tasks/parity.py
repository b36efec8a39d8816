"""Sparse parity: the product of k of n signs (arXiv 2207.08799, 2303.11873)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError, check_choice
from mi_jax.basics.fields import accepts_old_names, renamed
from mi_jax.contracts import (
    Batch,
    Evaluation,
    Feed,
    Inputs,
    Labels,
    Task,
    TaskSize,
    labels,
    trained_labels,
)
from mi_jax.tasks.sampling import (
    LARGEST_INDEX,
    check_at_least,
    check_sizes,
    distinct,
    example_bytes,
    finite_feed,
    orders_bytes,
)

Subset = Literal["first", "random"]
"""Choices of the relevant coordinates: see ``SparseParity``."""


@accepts_old_names
@dataclass(frozen=True)
class SparseParity(Task):
    """Signs x in {-1, +1}^n; the class is 1 if their product over a subset S of size k is +1, and 0
    if it is -1.

    The target of a hinge or square loss is therefore 2 class - 1 = prod_{i in S} x_i. The defaults
    are the finite set of arXiv 2303.11873 (Merrill et al.). ``examples=None`` is the online
    learning of arXiv 2207.08799 (Barak et al.), whose exact gradients at a network of signs are in
    ``tasks.fourier_gap``.

    Splits:
        test: different inputs, none of them in a finite training set.
        train: the finite training set, if there is one.

    Ground truth (``example`` runs over the splits one after another, in sorted order of their
    names):
        subset [feature]: whether a coordinate is in S.
        answer [example]: right class, without label noise.
        relevant_bits [example bit]: (1 + x_i) / 2 for each i in S, in ascending order.
        partial_parities [example bit]: class of the product of the first 1, 2, ..., k of them.
        corrupted [example]: whether the split's label is not the right class.

    Labels for probes, of 2 classes each:
        answer: right class.
        bit_i: (1 + x_i) / 2, for each i in S and for the first coordinate outside S, which no
            answer depends on.
        parity_j: class of the product of the first j of S, 1 < j < k.
        trained: whether the example is trained on.

    Attributes:
        n: number of signs of an input.
        k: number of signs that matter.
        subset: choice of S. "first": coordinates 0 to k - 1. "random": drawn with
            ``numpy.random.default_rng((split_seed, 1))``.
        examples: number of different inputs in a finite training set; None draws fresh inputs in
            every step.
        batch_size: examples per step; None trains on the whole finite set in every step.
        test_examples: number of inputs in the split "test".
        split_seed: seed of the sets, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a finite set of its own, drawn with
            split_seed + seed.
        label_noise: share of wrong labels, from 0 to 0.5. In a finite set exactly this share,
            rounded down to whole examples, is flipped once and for all; online, each label is
            flipped with this probability. Test labels are right.
    """

    n: int = 40
    k: int = 3
    subset: Subset = "first"
    examples: int | None = 1000
    batch_size: int | None = renamed("batch", 32)
    test_examples: int = 100
    split_seed: int = 0
    split_per_seed: bool = False
    label_noise: float = 0.0

    paper: ClassVar[str] = "arXiv 2207.08799, 2303.11873"

    def __post_init__(self) -> None:
        check_at_least(self, n=1, k=1, test_examples=1, split_seed=0)
        if self.n > LARGEST_INDEX:
            raise ConfigError(f"n={self.n}: the number of signs must be at most {LARGEST_INDEX}.")
        if self.k > self.n:
            raise ConfigError(f"k={self.k} of n={self.n} signs: k must be at most n.")
        check_choice("subset", self.subset, get_args(Subset))
        check_sizes(self.examples, self.batch_size)
        # 2^63 inputs are more than any set can hold.
        if (self.examples or 0) + self.test_examples > 2 ** min(self.n, 63):
            raise ConfigError(
                f"examples={self.examples} and test_examples={self.test_examples}: there are only"
                f" 2^{self.n} = {2**self.n} different inputs. Take fewer, or a larger n."
            )
        if not 0 <= self.label_noise <= 0.5:
            raise ConfigError(
                f"label_noise={self.label_noise}: the share of flipped labels must lie between 0"
                " and 0.5, at which nothing is left to learn."
            )

    @classmethod
    def smallest(cls) -> "SparseParity":
        """The product of 2 of 6 signs, on 32 examples."""
        return cls(n=6, k=2, examples=32, batch_size=8, test_examples=16)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether seeds differ in their data."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Description of the inputs: n floats at one position."""
        return Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=self.n)

    @property
    def read(self) -> tuple[int, ...]:
        """The only position."""
        return (0,)

    @property
    def coordinates(self) -> Int[np.ndarray, " bit"]:
        """The coordinates in S, in ascending order."""
        if self.subset == "first":
            return np.arange(self.k)
        return np.sort(
            np.random.default_rng((self.split_seed, 1)).choice(self.n, self.k, replace=False)
        )

    def size(self) -> TaskSize:
        """Size of the finite set, if there is one, and of the test set with its facts."""
        trained, each = self.examples or 0, example_bytes(self.inputs, 1)
        all_examples = trained + self.test_examples
        return TaskSize(
            batch=self.batch_size or trained,
            examples=all_examples,
            data=trained * each,
            evaluation=all_examples * (each + 8 * self.k + 5) + self.n,
            making=all_examples * 4 * self.n,
            drawing=orders_bytes(trained, self.batch_size) if trained else 0,
        )

    def answers(
        self, x: Float[Array, "*b feature"] | Int[np.ndarray, "*b feature"]
    ) -> Int[Array | np.ndarray, "*b"]:
        """Right class of each input: (1 + prod_{i in S} x_i) / 2."""
        return (1 + x[..., self.coordinates].prod(axis=-1).astype(np.int32)) // 2

    def _labelled(
        self,
        x: Float[Array, "b n"] | Int[np.ndarray, "b n"],
        flipped: Bool[Array | np.ndarray, " b"] | None = None,
    ) -> Batch:
        """Make the examples of inputs, with some of their labels flipped."""
        answers = self.answers(x) if flipped is None else self.answers(x) ^ flipped
        return Batch(
            jnp.asarray(x, jnp.float32)[:, None, :],
            jnp.asarray(answers, jnp.int32)[:, None],
            jnp.ones((len(x), 1)),
        )

    def _signs(self, *seed: int) -> Any:
        """Make a function count -> uniformly drawn signs, [count n]."""
        rng = np.random.default_rng(seed)
        return lambda count: 2 * rng.integers(2, size=(count, self.n), dtype=np.int8) - 1

    def data(self, seed: int) -> Batch | tuple[()]:
        """The finite set with its noisy labels; ``()`` if every step draws fresh examples."""
        if self.examples is None:
            return ()
        split_seed = self.split_seed + (seed if self.split_per_seed else 0)
        flipped = np.random.default_rng((split_seed, 2)).permutation(self.examples) < int(
            self.label_noise * self.examples
        )
        return self._labelled(distinct(self._signs(split_seed, 0), self.examples), flipped)

    def batches(self, data: Batch | tuple[()], key: PRNGKey, start: Count, n: Count) -> Feed:
        """Make fresh examples for each step, or batches of the finite set.

        Fresh examples of step s are drawn from ``fold_in(key, s)``.

        Args:
            data: the result of ``data``.
            key: key of the random stream "data".
            start: first step, traced.
            n: number of steps, traced; at most ``LONGEST_CHUNK``.
        """
        if isinstance(data, Batch):
            return finite_feed(data, self.batch_size, key, start, n)
        return lambda i: self._fresh(jax.random.fold_in(key, start + i))

    def _fresh(self, key: PRNGKey) -> Batch:
        """Draw the examples of one step."""
        assert self.batch_size is not None
        signs, noise = jax.random.split(key)
        flipped = None
        if self.label_noise:
            flipped = jax.random.bernoulli(noise, self.label_noise, (self.batch_size,))
        return self._labelled(
            jax.random.rademacher(signs, (self.batch_size, self.n), jnp.float32), flipped
        )

    def evaluation(self, data: Batch | tuple[()], key: PRNGKey) -> Evaluation:
        """Make the split "test" and, for a finite set, "train"; they share no input.

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure".
        """
        trained = np.asarray(data.inputs, np.int8)[:, 0] if isinstance(data, Batch) else None
        x = distinct(self._signs(self.split_seed, 3), self.test_examples, trained)
        batches = {"test": self._labelled(x)}
        if isinstance(data, Batch):
            batches["train"] = data
        seen = x if trained is None else np.concatenate([x, trained])
        # Sorted order of the splits: test, then train, as in ``seen``.
        targets = Evaluation(batches, {}).targets[:, 0]
        relevant = seen[:, self.coordinates].astype(np.int32)
        ground_truth = {
            "subset": np.isin(np.arange(self.n), self.coordinates),
            "answer": self.answers(seen),
            "relevant_bits": (1 + relevant) // 2,
            "partial_parities": (1 + np.cumprod(relevant, axis=1)) // 2,
            "corrupted": targets != self.answers(seen),
        }
        return Evaluation(batches, {name: jnp.asarray(fact) for name, fact in ground_truth.items()})

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels for probes: the answer, single bits and partial parities.

        Returns:
            Labels by name (answer, bit_i, parity_j, trained); one entry per example.
        """
        bits = (1 + evaluation.inputs[:, 0].astype(np.int64)) // 2
        chosen = self.coordinates
        outside = np.setdiff1d(np.arange(self.n), chosen)[:1]
        by_concept = {"answer": labels(np.asarray(evaluation.ground_truth["answer"]), 2)}
        by_concept |= {
            f"bit_{i}": labels(bits[:, i], 2) for i in (*chosen.tolist(), *outside.tolist())
        }
        partial = np.asarray(evaluation.ground_truth["partial_parities"])
        by_concept |= {f"parity_{j}": labels(partial[:, j - 1], 2) for j in range(2, self.k)}
        return {**by_concept, **trained_labels(evaluation)}
