"""Tasks on pairs of elements: splits, formats, label noise, and the evaluation's bookkeeping,
whatever the operation is.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.basics.fields import added, renamed
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, labels, trained_labels
from mi_jax.tasks.sampling import minibatches
from mi_jax.tasks.splits import Split, split_order, trained_count

Format = Literal["a b =", "a b", "a op b = c"]

_NOISE = 1
"""Sets the random numbers of label noise apart from those of the split with the same seed."""


class Noise(NamedTuple):
    """What label noise does to the trained pairs, in their order."""

    corrupted: Bool[np.ndarray, " example"]
    labels: Int[np.ndarray, " example"]
    """Drawn uniformly; the label where it is corrupted."""


@dataclass(frozen=True, kw_only=True)
class PairTask(Task):
    """A table of answers a o b over elements 0 to n - 1, a share of which is trained on; the answer
    is read at the last position.

    Concepts, of every task on pairs:
        table [token token_other]: where pair (a, b) stands in the evaluation splits, one after the
        other in sorted order. Absent
            where not every pair has an answer (division), and with it what is read of the whole
            table.
        answer [token token_other]: a o b, the right answer. Absent where ``table`` is.
        corrupted [example]: whether label noise drew the label of each training example, in the
        order of the split "train".
            Absent without label noise.
        right_answer [example]: the right answer of each training example, in the same order. Absent
        without label noise.

    Labels for probes, of every task on pairs: ``a``, ``b`` and ``answer`` (right, whatever label
        noise says), of n classes each,
    ``trained``, and those of its ``pair_labels``.

    Attributes:
        fraction: share of the pairs trained on, rounded down to whole pairs; a larger one contains
            a smaller one. With the split "unordered" it is the share of both kinds of pairs; with
            "held_out" the trained pairs are those of m kept elements, at most this share of all: m
            = isqrt(int(fraction n^2)), so that a share of about 1 - sqrt(fraction) of the elements
            is never seen.
        split: "published": as in the code of arXiv 2301.05217; "power_2022": as in the code of
            arXiv 2201.02177; "permutation": numpy's; "unordered": (a, b) and (b, a) on the same
            side; "held_out": pairs with a held-out element are the test set. See
            ``splits.split_order``.
        split_seed: the seed of the split and of label noise, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a split and noise of its own, drawn with
            split_seed + seed.
        format: the tokens: ``[a, b, =]`` with '=' as token n; ``[a, b]``; ``[a, o, b, =]`` with o
            as token n and '=' as n + 1.
        batch_size: examples a step; None trains on all of them in every step.
        label_noise: share xi of the training labels, rounded down to whole ones, that are replaced
            by uniformly drawn ones, which may be the right ones: who answers every pair rightly has
            a training accuracy of 1 - xi + xi / n (arXiv 2310.13061). What a smaller share
            corrupts, a larger one corrupts in the same way.
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
            require(value in get_args(kinds), f"{name}={value!r}: must be one of {get_args(kinds)}")
        require(
            0 < self.fraction < 1,
            f"fraction={self.fraction}: the trained share must lie between 0 and 1, both excluded",
        )
        pairs, trained = len(self.domain), self.trained
        require(
            0 < trained < pairs,
            f"fraction={self.fraction} of {pairs} pairs leaves {trained} to train on and"
            f" {pairs - trained} to test on; both must be at least 1",
        )
        seed = self.split_seed
        require(
            isinstance(seed, int) and seed >= 0,
            f"split_seed={seed}: must be a whole number of at least 0",
        )
        require(
            self.batch_size is None
            or (isinstance(self.batch_size, int) and 1 <= self.batch_size <= trained),
            f"batch_size={self.batch_size}: must be a whole number from 1 to the {trained} trained pairs, or"
            " None for all of them",
        )
        require(
            0 <= self.label_noise <= 1,
            f"label_noise={self.label_noise}: the share of replaced labels must lie between 0"
            " and 1",
        )

    @property
    @abstractmethod
    def elements(self) -> int:
        """n."""

    @property
    @abstractmethod
    def domain(self) -> Int[np.ndarray, " pair"]:
        """The flat indices a n + b of the pairs that have an answer, rising."""

    @abstractmethod
    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """The right answers of pairs of the domain."""

    @abstractmethod
    def facts(self) -> Mapping[str, Array]:
        """Concepts of this task beyond those of every task on pairs."""

    def pair_labels(
        self,
        a: Int[np.ndarray, " pair"],
        b: Int[np.ndarray, " pair"],
        answer: Int[np.ndarray, " pair"],
    ) -> Mapping[str, Labels]:
        """Labels of this task beyond those of every task on pairs; none, unless a task says more."""
        return {}

    @property
    def trained(self) -> int:
        """How many pairs are trained on."""
        return trained_count(self.split, self.domain, self.elements, self.fraction)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the data differ by seed."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Tokens [a, b, =], [a, b] or [a, o, b, =]."""
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
        """The answer is read at the last position."""
        return (len(self.inputs.alphabet) - 1,)

    def order(self, seed: int = 0) -> Int[np.ndarray, " pair"]:
        """The pairs' flat indices a n + b in the order of the split: the first ``trained`` are
        trained on.
        """
        domain = self.domain
        answers = self.answers(*np.divmod(domain, self.elements))
        return split_order(
            self.split, domain, self.elements, self.fraction, self._seed(seed), answers
        )

    def noise(self, seed: int = 0) -> Noise:
        """Which trained pairs are corrupted, and with what label, in the order of the split.

        A number and a label are drawn for every pair; the ``int(label_noise trained)`` trained
        pairs with the smallest numbers are corrupted. So another fraction or another share changes
        the label of few pairs that it doesn't have to change.
        """
        n, trained = self.elements, self.order(seed)[: self.trained]
        rng = np.random.default_rng([_NOISE, self._seed(seed)])
        numbers, labels = rng.random(n * n)[trained], rng.integers(n, size=n * n)[trained]
        corrupted = np.zeros(len(trained), bool)
        corrupted[np.argsort(numbers)[: int(self.label_noise * len(trained))]] = True
        return Noise(corrupted, labels)

    def examples(self, pairs: Int[np.ndarray, " pair"]) -> Batch:
        """The examples of flat pair indices, rightly answered."""
        a, b = np.divmod(pairs.astype(np.int64), self.elements)
        inputs, operands = self.inputs, iter((a, b))
        # What stands at a position that never varies is its only token.
        places = enumerate(inputs.alphabet)
        tokens = [
            next(operands) if i in inputs.varied else np.full_like(a, first)
            for i, (first, _) in places
        ]
        targets = jnp.asarray(self.answers(a, b)[:, None], jnp.int32)
        return Batch(
            jnp.asarray(np.stack(tokens, axis=1).astype(np.int32)),
            targets,
            jnp.ones((len(pairs), 1)),
        )

    def data(self, seed: int) -> Batch:
        """The trained pairs, in the order of the split; with label noise, ``info`` says what was
        corrupted and what is right.
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
        """All trained pairs in every step, or minibatches of ``batch_size``."""
        if self.batch_size is None:
            return lambda i: data
        indices = minibatches(key, self.trained, self.batch_size, start, n)

        def feed(i: Count) -> Batch:
            rows: Int[Array, " batch"] = indices(i)
            info = {name: value[rows] for name, value in data.info.items()}
            return Batch(data.inputs[rows], data.targets[rows], data.weights[rows], info)

        return feed

    def evaluation(self, data: Batch, key: PRNGKey) -> Evaluation:
        """Splits "train", as it is trained on, and "test", rightly answered; together they are all
        pairs that have an answer.
        """
        n, domain = self.elements, self.domain
        a, b = np.asarray(data.inputs).T[list(self.inputs.varied)]
        trained = a * n + b
        rest = np.setdiff1d(domain, trained)
        concepts: dict[str, Array | np.ndarray] = dict(self.facts())
        if len(domain) == n * n:
            place = np.empty(n * n, np.int32)
            # Splits are concatenated in sorted order: test, then train.
            place[rest], place[trained] = np.arange(len(rest)), len(rest) + np.arange(len(trained))
            concepts["table"] = jnp.asarray(place.reshape(n, n))
            concepts["answer"] = self.examples(domain).targets.reshape(n, n)
        return Evaluation({"train": data, "test": self.examples(rest)}, {**concepts, **data.info})

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """See the class."""
        a, b = evaluation.inputs.T[list(self.inputs.varied)].astype(np.int64)
        answer = np.asarray(self.answers(a, b))
        whole = {
            name: labels(x, self.elements) for name, x in (("a", a), ("b", b), ("answer", answer))
        }
        return {**whole, **trained_labels(evaluation), **self.pair_labels(a, b, answer)}

    def _seed(self, seed: int) -> int:
        return self.split_seed + (seed if self.split_per_seed else 0)
