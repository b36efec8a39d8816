"""Tasks on pairs of elements, whatever the operation: splits, formats, label noise, evaluation."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import added, renamed
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
from mi_jax.tasks.sampling import check_at_least, example_bytes, finite_feed, orders_bytes
from mi_jax.tasks.splits import Split, split_order, trained_count

Format = Literal["a b =", "a b", "a op b = c"]
"""Input formats of a pair: see ``PairTask``."""

_NOISE = 1
"""Extra seed of label noise, so that its numbers differ from those of the split."""


_MAKING_BYTES = 64
"""Bytes per pair that a split takes: a list of Python numbers, and arrays of pairs and answers."""

_LARGEST_POWER_SEED = 2**31 - 1


class Noise(NamedTuple):
    """Label noise of the trained pairs, in their order.

    Attributes:
        corrupted: whether the label of each pair is replaced, [example].
        labels: uniformly drawn labels, [example]; they take effect if ``corrupted`` is true.
    """

    corrupted: Bool[np.ndarray, " example"]
    labels: Int[np.ndarray, " example"]


@dataclass(frozen=True, kw_only=True)
class PairTask(Task):
    """A table of answers a o b over elements 0 to n - 1. Training sees a share of the pairs.

    The answer is read at the last position.

    Splits:
        train: the trained pairs, with label noise.
        test: all other pairs, with their right answers.

    Ground truth of every task on pairs:
        table [token token_other]: number of pair (a, b) in the list of all examples: the pairs of
            "test", then those of "train". Absent if some pair has no answer (division); readings
            of the whole table are then skipped.
        answer [token token_other]: right answer a o b. Absent if ``table`` is absent.
        corrupted [example]: whether label noise replaced the label of each training example, in
            the order of the split "train". Absent without label noise.
        right_answer [example]: right answer of each training example, in the same order. Absent
            without label noise.

    Labels for probes of every task on pairs, with their number of classes:
        a, b [n]: the operands.
        answer [n]: right answer, without label noise.
        trained [2]: whether the pair is trained on.

    Attributes:
        fraction: share of the pairs that is trained on, rounded down to whole pairs. A larger
            share contains a smaller one. With "unordered", it is taken of the single pairs and of
            the mirrored sets separately, see ``splits.split_order``. With "held_out", the trained
            pairs are those of m kept elements: the largest m for which they are at most this share
            of the pairs that have an answer. m elements make m^2 pairs, or m (m - 1) for division.
            A share of about 1 - sqrt(fraction) of the elements is never seen.
        split: choice of the trained pairs, see ``splits.split_order``. "published": as in the code
            of arXiv 2301.05217. "power_2022": as in the code of arXiv 2201.02177. "permutation":
            NumPy's permutation. "unordered": (a, b) and (b, a) on the same side. "held_out": the
            pairs with a held-out element are the test set.
        split_seed: seed of the split and of label noise, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a split and noise of its own, drawn with
            split_seed + seed.
        format: input tokens. "a b =": ``[a, b, =]`` with '=' as token n. "a b": ``[a, b]``.
            "a op b = c": ``[a, o, b, =]`` with o as token n and '=' as token n + 1.
        batch_size: examples per step; None trains on all of them in every step.
        label_noise: share xi of the training labels, rounded down to whole labels, that is
            replaced by uniformly drawn labels, which may be right. A network that gives the right
            answer to every pair has a training accuracy of 1 - xi + xi / n (arXiv 2310.13061). A
            larger share contains the corruptions of a smaller one.
    """

    fraction: float = 0.3
    split: Split = "published"
    split_seed: int = 0
    split_per_seed: bool = False
    format: Format = "a b ="
    batch_size: int | None = renamed("batch", None)
    label_noise: float = added(0.0)

    def __post_init__(self) -> None:
        for name, kinds in (("split", Split), ("format", Format)):
            value = getattr(self, name)
            if value not in get_args(kinds):
                raise ConfigError(f"{name}={value!r}: must be one of {get_args(kinds)}")
        if not 0 < self.fraction < 1:
            raise ConfigError(
                f"fraction={self.fraction}: the trained share must lie between 0 and 1, both"
                " excluded."
            )
        pairs, trained = self.pair_count, self.trained
        if not 0 < trained < pairs:
            raise ConfigError(
                f"fraction={self.fraction} of {pairs} pairs leaves {trained} to train on and"
                f" {pairs - trained} to test on; both must be at least 1."
            )
        check_at_least(self, split_seed=0)
        if self.split == "power_2022" and self.split_seed > _LARGEST_POWER_SEED:
            raise ConfigError(
                f"split_seed={self.split_seed}: the published generator of split='power_2022' takes"
                f" seeds up to {_LARGEST_POWER_SEED}."
            )
        size = self.batch_size
        if size is not None and not (isinstance(size, int) and 1 <= size <= trained):
            raise ConfigError(
                f"batch_size={size}: must be a whole number from 1 to the {trained} trained pairs,"
                " or None for all of them."
            )
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(
                f"label_noise={self.label_noise}: the share of replaced labels must lie between 0"
                " and 1."
            )

    @property
    @abstractmethod
    def elements(self) -> int:
        """Number n of elements."""

    @property
    @abstractmethod
    def domain(self) -> Int[np.ndarray, " pair"]:
        """Flat indices a n + b of the pairs (a, b) that have an answer, in ascending order.

        n is the number of elements.
        """

    @property
    def pair_count(self) -> int:
        """Number of pairs that have an answer: n^2, or n (n - 1) if b divides.

        A task whose tables may be large computes it without making the ``domain``.
        """
        return len(self.domain)

    @property
    def fact_bytes(self) -> int:
        """Bytes of the ground truth of ``facts``, within a factor of 2: two tables by default."""
        return 2 * 4 * self.elements**2

    @abstractmethod
    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """Compute the right answers of pairs of the domain.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
        """

    @abstractmethod
    def facts(self) -> Mapping[str, Array]:
        """Compute the task's ground truth beyond that of every task on pairs."""

    def pair_labels(
        self,
        a: Int[np.ndarray, " pair"],
        b: Int[np.ndarray, " pair"],
        answer: Int[np.ndarray, " pair"],
    ) -> Mapping[str, Labels]:
        """Make the task's labels for probes beyond those of every task on pairs; none by default.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
            answer: right answers, [pair].

        Returns:
            Labels by name; one entry per pair.
        """
        return {}

    @property
    def trained(self) -> int:
        """Number of trained pairs."""
        return trained_count(self.split, self.pair_count, self.elements, self.fraction)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether seeds differ in their data."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Description of the inputs: tokens [a, b, =], [a, b] or [a, o, b, =]."""
        n = self.elements
        alphabet = {
            "a b": ((0, n), (0, n)),
            "a b =": ((0, n), (0, n), (n, n + 1)),
            "a op b = c": ((0, n), (n, n + 1), (0, n), (n + 1, n + 2)),
        }[self.format]
        vocabulary = max(end for _, end in alphabet)
        return Inputs(
            "tokens", vocabulary=vocabulary, positions=len(alphabet), classes=n, alphabet=alphabet
        )

    @property
    def read(self) -> tuple[int, ...]:
        """The last position."""
        return (len(self.inputs.alphabet) - 1,)

    def size(self) -> TaskSize:
        """Size of the trained pairs, and of all pairs with their ground truth."""
        pairs, trained, n = self.pair_count, self.trained, self.elements
        each = example_bytes(self.inputs, len(self.read))
        noise = 5 * trained if self.label_noise else 0
        tables = 2 * 4 * n * n if pairs == n * n else 0
        return TaskSize(
            batch=self.batch_size or trained,
            examples=pairs,
            data=trained * each + noise,
            evaluation=pairs * each + noise + tables + self.fact_bytes,
            making=pairs * _MAKING_BYTES,
            drawing=orders_bytes(trained, self.batch_size),
        )

    def order(self, seed: int = 0) -> Int[np.ndarray, " pair"]:
        """Flat indices a n + b of the pairs (a, b), in the order of the split.

        n is the number of elements. The first ``trained`` pairs are trained on.

        Args:
            seed: label of the run's seed; it matters only with ``split_per_seed``.
        """
        domain = self.domain
        answers = self.answers(*np.divmod(domain, self.elements))
        return split_order(
            self.split, domain, self.elements, self.fraction, self._seed(seed), answers
        )

    def noise(self, seed: int = 0) -> Noise:
        """Label noise of the trained pairs, in the order of the split.

        A number and a label are drawn for every pair. The ``int(label_noise trained)`` trained
        pairs with the smallest numbers are corrupted. A change of ``fraction`` or ``label_noise``
        therefore changes few labels that need not change.

        Args:
            seed: label of the run's seed; it matters only with ``split_per_seed``.
        """
        n, trained = self.elements, self.order(seed)[: self.trained]
        rng = np.random.default_rng([_NOISE, self._seed(seed)])
        numbers, labels = rng.random(n * n)[trained], rng.integers(n, size=n * n)[trained]
        corrupted = np.zeros(len(trained), bool)
        corrupted[np.argsort(numbers)[: int(self.label_noise * len(trained))]] = True
        return Noise(corrupted, labels)

    def examples(self, pairs: Int[np.ndarray, " pair"]) -> Batch:
        """Make the examples of flat pair indices, with right answers."""
        a, b = np.divmod(pairs.astype(np.int64), self.elements)
        inputs, operands = self.inputs, iter((a, b))
        # A position that does not vary holds its only token.
        tokens = [
            next(operands) if i in inputs.varied else np.full_like(a, first)
            for i, (first, _) in enumerate(inputs.alphabet)
        ]
        targets = jnp.asarray(self.answers(a, b)[:, None], jnp.int32)
        return Batch(
            jnp.asarray(np.stack(tokens, axis=1).astype(np.int32)),
            targets,
            jnp.ones((len(pairs), 1)),
        )

    def data(self, seed: int) -> Batch:
        """Make the trained pairs, in the order of the split.

        With label noise, ``info`` holds by example ``corrupted``, whether the label was replaced,
        and ``right_answer``.
        """
        right = self.examples(self.order(seed)[: self.trained])
        if self.label_noise == 0:
            return right
        corrupted, labels = (jnp.asarray(x) for x in self.noise(seed))
        targets = jnp.where(corrupted[:, None], labels[:, None].astype(jnp.int32), right.targets)
        return right._replace(
            targets=targets, info={"corrupted": corrupted, "right_answer": right.targets[:, 0]}
        )

    def batches(self, data: Batch, key: PRNGKey, start: Count, n: Count) -> Feed:
        """Feed all trained pairs in every step, or minibatches of ``batch_size``.

        Args:
            data: the result of ``data``.
            key: key of the random stream "data".
            start: first step, traced.
            n: number of steps, traced; at most ``LONGEST_CHUNK``.
        """
        return finite_feed(data, self.batch_size, key, start, n)

    def evaluation(self, data: Batch, key: PRNGKey) -> Evaluation:
        """Make the splits "train", as trained on, and "test", with right answers.

        Together they hold all pairs that have an answer.

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure".
        """
        n, domain = self.elements, self.domain
        a, b = np.asarray(data.inputs).T[list(self.inputs.varied)]
        trained = a * n + b
        rest = np.setdiff1d(domain, trained)
        ground_truth: dict[str, Array | np.ndarray] = dict(self.facts())
        if len(domain) == n * n:
            rows = np.empty(n * n, np.int32)
            # Splits are concatenated in sorted order of their names: test, then train.
            rows[rest] = np.arange(len(rest))
            rows[trained] = len(rest) + np.arange(len(trained))
            ground_truth["table"] = jnp.asarray(rows.reshape(n, n))
            ground_truth["answer"] = self.examples(domain).targets.reshape(n, n)
        batches = {"train": data, "test": self.examples(rest)}
        return Evaluation(batches, {**ground_truth, **data.info})

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels for probes: a, b, answer, trained, and those of ``pair_labels``."""
        a, b = evaluation.inputs.T[list(self.inputs.varied)].astype(np.int64)
        answer = np.asarray(self.answers(a, b))
        by_element = {
            name: labels(x, self.elements) for name, x in (("a", a), ("b", b), ("answer", answer))
        }
        return {**by_element, **trained_labels(evaluation), **self.pair_labels(a, b, answer)}

    def _seed(self, seed: int) -> int:
        """Seed of the split and of label noise."""
        return self.split_seed + (seed if self.split_per_seed else 0)
