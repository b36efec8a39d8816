"""Sparse parity: the product of k of n signs, learned from fresh or finite data (arXiv 2207.08799,
2303.11873).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import accepts_old_names, renamed
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, labels, trained_labels
from mi_jax.tasks.sampling import distinct, minibatches

Subset = Literal["first", "random"]


@accepts_old_names
@dataclass(frozen=True)
class SparseParity(Task):
    """Signs x in {-1, +1}^n; the answer is their product over a subset S of size k, as class 1 for
    +1 and class 0 for -1.

    So 2 class - 1 = prod_{i in S} x_i is the target of a hinge or square loss. The defaults are the
    finite set of arXiv 2303.11873 (Merrill et al.); ``examples=None`` is the online learning of
    arXiv 2207.08799 (Barak et al.), whose exact gradients at a network of signs are in
    ``fourier_gap``.

    Concepts (``example`` as in the evaluation's splits one after the other, in sorted order):
        subset [feature]: whether a coordinate is in S.
        answer [example]: the true class, without label noise.
        relevant_bits [example bit]: (1 + x_i) / 2 for each i in S, in ascending order.
        partial_parities [example bit]: the class of the product of the first 1, 2, ..., k of them.
        corrupted [example]: whether the split's label is not the true class.

    Labels for probes, 2 classes each: ``answer``; ``bit_i`` for each coordinate i in S and, as what
        nobody needs, for the first
    outside it; ``parity_j``, the class of the product of the first j of S, 1 < j < k; ``trained``.

    Attributes:
        n, k: signs of an input, and how many of them matter.
        subset: S: "first": coordinates 0 to k - 1; "random": drawn with
            ``numpy.random.default_rng((split_seed, 1))``.
        examples: different inputs trained on; None draws fresh ones in every step.
        batch_size: examples a step; None trains on the whole finite set in every step.
        test_examples: different inputs of the split "test", none of them in the finite training
            set.
        split_seed: of the sets, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a finite set of its own, drawn with
            split_seed + seed.
        label_noise: of a finite set exactly this share of the labels, rounded down to whole
            examples, is flipped for good; online each label is flipped with this probability. Test
            labels are true.
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
        for name, value in (("n", self.n), ("k", self.k), ("test_examples", self.test_examples)):
            require(
                isinstance(value, int) and value >= 1,
                f"{name}={value}: must be a whole number of at least 1",
            )
        require(self.k <= self.n, f"k={self.k} of n={self.n} signs: k must be at most n")
        require(
            self.subset in get_args(Subset),
            f"subset={self.subset!r} is unknown; {nearest(self.subset, get_args(Subset))}",
        )
        require(
            self.examples is None or (isinstance(self.examples, int) and self.examples >= 1),
            f"examples={self.examples}: must be a whole number of at least 1, or None for fresh"
            " ones in every step",
        )
        trained = self.examples or 0
        require(
            trained + self.test_examples <= 2**self.n,
            f"examples={self.examples} and test_examples={self.test_examples}: there are only"
            f" 2^{self.n} = {2**self.n} different inputs; take fewer, or a larger n",
        )
        require(
            self.batch_size is not None or self.examples is not None,
            "batch_size=None: fresh examples (examples=None) need a number",
        )
        require(
            self.batch_size is None
            or (
                isinstance(self.batch_size, int)
                and 1 <= self.batch_size <= (self.examples or self.batch_size)
            ),
            f"batch_size={self.batch_size}: must be a whole number from 1"
            + (
                f" to the {self.examples} trained examples, or None for all of them"
                if self.examples
                else ""
            ),
        )
        require(
            isinstance(self.split_seed, int) and self.split_seed >= 0,
            f"split_seed={self.split_seed}: must be at least 0",
        )
        require(
            0 <= self.label_noise <= 0.5,
            f"label_noise={self.label_noise}: the share of flipped labels must lie between 0 and"
            " 0.5 (nothing left to learn)",
        )

    @classmethod
    def smallest(cls) -> "SparseParity":
        """The product of 2 of 6 signs, 32 examples."""
        return cls(n=6, k=2, examples=32, batch_size=8, test_examples=16)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the data differ by seed."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """One position of n floats."""
        return Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=self.n)

    @property
    def read(self) -> tuple[int, ...]:
        """The only position."""
        return (0,)

    @property
    def coordinates(self) -> Int[np.ndarray, " bit"]:
        """S, in ascending order."""
        if self.subset == "first":
            return np.arange(self.k)
        return np.sort(
            np.random.default_rng((self.split_seed, 1)).choice(self.n, self.k, replace=False)
        )

    def answers(
        self, x: Float[Array, "*b feature"] | Int[np.ndarray, "*b feature"]
    ) -> Int[Array | np.ndarray, "*b"]:
        """The class of each input: (1 + prod_{i in S} x_i) / 2."""
        return (1 + x[..., self.coordinates].prod(axis=-1).astype(np.int32)) // 2

    def _labelled(
        self,
        x: Float[Array, "b n"] | Int[np.ndarray, "b n"],
        flipped: Bool[Array | np.ndarray, " b"] | None = None,
    ) -> Batch:
        answers = self.answers(x) if flipped is None else self.answers(x) ^ flipped
        return Batch(
            jnp.asarray(x, jnp.float32)[:, None, :],
            jnp.asarray(answers, jnp.int32)[:, None],
            jnp.ones((len(x), 1)),
        )

    def _signs(self, *seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return lambda count: 2 * rng.integers(2, size=(count, self.n), dtype=np.int8) - 1

    def data(self, seed: int) -> Batch | tuple[()]:
        """The finite set with its labels as trained; nothing where every step draws its own."""
        if self.examples is None:
            return ()
        split_seed = self.split_seed + (seed if self.split_per_seed else 0)
        flipped = np.random.default_rng((split_seed, 2)).permutation(self.examples) < int(
            self.label_noise * self.examples
        )
        return self._labelled(distinct(self._signs(split_seed, 0), self.examples), flipped)

    def batches(self, data: Batch | tuple[()], key: PRNGKey, start: Count, n: Count) -> Feed:
        """Fresh examples, those of step s drawn from ``fold_in(key, s)``; or the finite set, whole
        or in minibatches.
        """
        if not isinstance(data, Batch):
            return lambda i: self._fresh(jax.random.fold_in(key, start + i))
        if self.batch_size is None:
            return lambda i: data
        assert self.examples is not None
        indices = minibatches(key, self.examples, self.batch_size, start, n)

        def feed(i: Count) -> Batch:
            rows = indices(i)
            return Batch(data.inputs[rows], data.targets[rows], data.weights[rows])

        return feed

    def _fresh(self, key: PRNGKey) -> Batch:
        assert self.batch_size is not None
        signs, noise = jax.random.split(key)
        flipped = (
            jax.random.bernoulli(noise, self.label_noise, (self.batch_size,))
            if self.label_noise
            else None
        )
        return self._labelled(
            jax.random.rademacher(signs, (self.batch_size, self.n), jnp.float32), flipped
        )

    def evaluation(self, data: Batch | tuple[()], key: PRNGKey) -> Evaluation:
        """Split "test" of fresh inputs, and "train" where the set is finite."""
        trained = np.asarray(data.inputs, np.int8)[:, 0] if isinstance(data, Batch) else None
        x = distinct(self._signs(self.split_seed, 3), self.test_examples, trained)
        batches = {"test": self._labelled(x)}
        if isinstance(data, Batch):
            batches["train"] = data
        seen = x if trained is None else np.concatenate([x, trained])
        labels = np.concatenate(
            [np.asarray(batches[split].targets)[:, 0] for split in sorted(batches)]
        )
        relevant = seen[:, self.coordinates].astype(np.int32)
        concepts = {
            "subset": np.isin(np.arange(self.n), self.coordinates),
            "answer": self.answers(seen),
            "relevant_bits": (1 + relevant) // 2,
            "partial_parities": (1 + np.cumprod(relevant, axis=1)) // 2,
            "corrupted": labels != self.answers(seen),
        }
        return Evaluation(batches, {name: jnp.asarray(fact) for name, fact in concepts.items()})

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """See the class."""
        bits = (1 + evaluation.inputs[:, 0].astype(np.int64)) // 2
        chosen = self.coordinates
        outside = np.setdiff1d(np.arange(self.n), chosen)[:1]
        found = {"answer": labels(np.asarray(evaluation.ground_truth["answer"]), 2)}
        found |= {f"bit_{i}": labels(bits[:, i], 2) for i in (*chosen.tolist(), *outside.tolist())}
        partial = np.asarray(evaluation.ground_truth["partial_parities"])
        found |= {f"parity_{j}": labels(partial[:, j - 1], 2) for j in range(2, self.k)}
        return {**found, **trained_labels(evaluation)}
