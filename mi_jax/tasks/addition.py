"""Multi-digit addition (arXiv 2301.05217): one answer digit after another, highest place first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError
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
    LONGEST_INPUT,
    check_at_least,
    check_sizes,
    distinct,
    example_bytes,
    finite_feed,
    orders_bytes,
)

PLUS, EQUALS = 10, 11
"""Tokens of '+' and '='."""

_CLASSES = {
    "answer": 10,
    "base_sum": 10,
    "makes_carry": 2,
    "sum_nine": 2,
    "carry_in": 2,
    "carry_case": 3,
}


@accepts_old_names
@dataclass(frozen=True)
class MultiDigitAddition(Task):
    """The sum of two N-digit numbers as tokens ``a + b = c``, highest place first, with leading
    zeros.

    The loss is the mean over the N + 1 digits of c. Each digit is read at the position before it
    ('=' for the first), so the right digits before it are in the input; the input ends with the
    last digit but one. Digits are tokens 0 to 9, '+' is 10 and '=' is 11. Pairs (a, b) are drawn
    uniformly, fresh in every step or as a finite set. arXiv 2301.05217 trains on both; its finite
    set has 700 pairs.

    Splits:
        test: pairs drawn uniformly, none of them in a finite training set.
        cascade: the hardest pairs. Their units make a carry that travels through all other places,
            each of which sums to nine.
        train: the finite training set, if there is one.

    Ground truth, with the names of arXiv 2310.13121 in brackets. ``place`` runs over ``read``;
    ``example`` over the splits one after another, in sorted order of their names:
        places [place]: power of ten of each answer digit: N, N - 1, ..., 0.
        answer [example place]: digit of the sum, (base_sum + carry_in) mod 10.
        base_sum [example place]: (a_i + b_i) mod 10 of that place; 0 at place N (base add).
        makes_carry [example place]: whether a_i + b_i >= 10 (make carry 1).
        sum_nine [example place]: whether a_i + b_i = 9 (make sum 9).
        carry_in [example place]: whether the places to the right carry into it (use carry 1).
        carry_case [example place]: 0 without a carry into the place; 1 if the place to its right
            makes the carry; 2 if the carry passes through a place that sums to nine (use sum 9).

    Labels for probes [example place], with their number of classes:
        a, b [10]: the operands' digits of the place; 0 at place N.
        answer, base_sum [10], makes_carry, sum_nine, carry_in [2], carry_case [3]: as above.
        trained [2]: whether the example is trained on, [example].

    Attributes:
        digits: number N of digits of a and b.
        examples: number of different pairs (a, b) in a finite training set; None draws fresh pairs
            in every step.
        batch_size: pairs per step; None trains on the whole finite set in every step.
        test_examples: number of pairs in the split "test".
        cascade_examples: number of pairs in the split "cascade"; 0 leaves the split out.
        split_seed: seed of the sets, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a finite set of its own, drawn with
            split_seed + seed.
    """

    digits: int = 5
    examples: int | None = None
    batch_size: int | None = renamed("batch", 64)
    test_examples: int = 512
    cascade_examples: int = 128
    split_seed: int = 0
    split_per_seed: bool = False

    paper: ClassVar[str] = "arXiv 2301.05217, 2310.13121"

    def __post_init__(self) -> None:
        check_at_least(self, digits=1, test_examples=1, cascade_examples=0, split_seed=0)
        check_sizes(self.examples, self.batch_size)
        if 3 * self.digits + 2 > LONGEST_INPUT:
            raise ConfigError(
                f"digits={self.digits}: must be at most {(LONGEST_INPUT - 2) // 3}, so that an"
                f" input has at most {LONGEST_INPUT} positions."
            )
        taken = (self.examples or 0) + self.test_examples
        pairs, cascades = 100**self.digits, self._cascades
        if self.cascade_examples and taken + self.cascade_examples > cascades:
            raise ConfigError(
                f"cascade_examples={self.cascade_examples}: {self.digits}-digit numbers have"
                f" {cascades} such pairs, of which {taken} may be in the training set or the test"
                " split. Take fewer, or 0 to leave the split out."
            )
        if taken + self.cascade_examples > pairs:
            raise ConfigError(
                f"examples={self.examples}, test_examples={self.test_examples} and"
                f" cascade_examples={self.cascade_examples}: there are only {pairs} different pairs"
                f" of {self.digits}-digit numbers. Take fewer."
            )

    @property
    def _cascades(self) -> int:
        """Number of pairs whose carry travels from the units through every other place.

        The units have 45 such pairs, every other place has 10.
        """
        return 45 * 10 ** (self.digits - 1) if self.digits > 1 else 0

    @classmethod
    def smallest(cls) -> "MultiDigitAddition":
        """Two-digit numbers, fresh in every step."""
        return cls(digits=2, batch_size=16, test_examples=48, cascade_examples=16)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether seeds differ in their data."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Tokens a + b = and all answer digits but the last. The first answer digit is 0 or 1."""
        digit = ((0, 10),) * self.digits
        answer = ((0, 2), *digit[1:])
        alphabet = (*digit, (PLUS, PLUS + 1), *digit, (EQUALS, EQUALS + 1), *answer)
        return Inputs(
            "tokens",
            vocabulary=12,
            positions=len(alphabet),
            classes=10,
            alphabet=alphabet,
            causal=True,
        )

    @property
    def read(self) -> tuple[int, ...]:
        """Positions of '=' and of all answer digits but the last: N + 1 positions."""
        return tuple(range(2 * self.digits + 1, 3 * self.digits + 2))

    def size(self) -> TaskSize:
        """Size of the finite set, if there is one, and of the test sets with their facts."""
        trained, places = self.examples or 0, self.digits + 1
        all_examples = trained + self.test_examples + self.cascade_examples
        each = example_bytes(self.inputs, places)
        return TaskSize(
            batch=self.batch_size or trained,
            examples=all_examples,
            data=trained * each,
            evaluation=all_examples * (each + 6 * 4 * places),
            making=all_examples * 8 * self.digits,
            drawing=orders_bytes(trained, self.batch_size) if trained else 0,
        )

    def examples_of(self, pairs: Int[Array | np.ndarray, "b 2 digit"]) -> Batch:
        """Make the examples of pairs of numbers, given by their digits, highest place first."""
        xp = np if isinstance(pairs, np.ndarray) else jnp
        answer, sign = self.facts(pairs)["answer"], xp.ones((len(pairs), 1), np.int32)
        inputs = xp.concatenate(
            [pairs[:, 0], PLUS * sign, pairs[:, 1], EQUALS * sign, answer[:, :-1]], axis=1
        )
        return Batch(jnp.asarray(inputs, jnp.int32), jnp.asarray(answer), jnp.ones(answer.shape))

    def facts(
        self, pairs: Int[Array | np.ndarray, "b 2 digit"]
    ) -> dict[str, Int[Array | np.ndarray, "b place"]]:
        """Exact facts about each pair at each place of the answer, highest place first."""
        # Sets that are drawn once are NumPy arrays, for which nothing is compiled.
        xp: Any = np if isinstance(pairs, np.ndarray) else jnp
        sums = xp.pad(pairs.sum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        none = xp.zeros(len(sums), np.int32)
        carries, cases = [none], [none]
        for place in range(self.digits, 0, -1):
            carries.append((sums[:, place] + carries[-1] >= 10).astype(np.int32))
            cases.append(carries[-1] * (1 + (sums[:, place] == 9)))
        carry_in = xp.stack(carries[::-1], axis=1)
        return {
            "answer": (sums + carry_in) % 10,
            "base_sum": sums % 10,
            "makes_carry": (sums >= 10).astype(np.int32),
            "sum_nine": (sums == 9).astype(np.int32),
            "carry_in": carry_in,
            "carry_case": xp.stack(cases[::-1], axis=1),
        }

    def _pairs(self, *seed: int) -> Any:
        """Make a function count -> uniformly drawn pairs of numbers, [count 2 digit]."""
        rng = np.random.default_rng(seed)
        return lambda count: rng.integers(10, size=(count, 2, self.digits), dtype=np.int8)

    def _cascading(self, *seed: int) -> Any:
        """Make a function count -> pairs for the split "cascade", [count 2 digit]."""
        rng = np.random.default_rng(seed)
        units = np.array([(a, b) for a in range(10) for b in range(10) if a + b >= 10], np.int8)

        def draw(count: int) -> Int[np.ndarray, "b 2 digit"]:
            first = rng.integers(10, size=(count, 1, self.digits - 1), dtype=np.int8)
            last = units[rng.integers(len(units), size=count)]
            return np.concatenate(
                [np.concatenate([first, 9 - first], axis=1), last[:, :, None]], axis=2
            )

        return draw

    def data(self, seed: int) -> Batch | tuple[()]:
        """The finite set; ``()`` if every step draws fresh examples."""
        if self.examples is None:
            return ()
        split_seed = self.split_seed + (seed if self.split_per_seed else 0)
        return self.examples_of(distinct(self._pairs(split_seed, 0), self.examples))

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
        assert self.batch_size is not None
        shape = (self.batch_size, 2, self.digits)
        return lambda i: self.examples_of(
            jax.random.randint(jax.random.fold_in(key, start + i), shape, 0, 10)
        )

    def evaluation(self, data: Batch | tuple[()], key: PRNGKey) -> Evaluation:
        """Make the splits "test", "cascade" and, for a finite set, "train", which share no pair.

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure".
        """
        pairs = {"train": self._digits(data)} if isinstance(data, Batch) else {}
        pairs["test"] = distinct(
            self._pairs(self.split_seed, 1), self.test_examples, pairs.get("train")
        )
        if self.cascade_examples:
            others = np.concatenate(list(pairs.values()))
            pairs["cascade"] = distinct(
                self._cascading(self.split_seed, 2), self.cascade_examples, others
            )
        batches = {split: self.examples_of(pairs[split]) for split in sorted(pairs)}
        facts = self.facts(np.concatenate([pairs[split] for split in sorted(pairs)]))
        ground_truth = {"places": np.arange(self.digits, -1, -1), **facts}
        return Evaluation(
            batches, {name: jnp.asarray(fact, jnp.int32) for name, fact in ground_truth.items()}
        )

    def _digits(self, data: Batch) -> Int[np.ndarray, "b 2 digit"]:
        """The operands' digits, read from the tokens of examples."""
        tokens, n = np.asarray(data.inputs, np.int8), self.digits
        return np.stack([tokens[:, :n], tokens[:, n + 1 : 2 * n + 1]], axis=1)

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels for probes: the digits of a and b, those of the answer and its carries.

        Returns:
            Labels by name (a, b, answer, base_sum, makes_carry, sum_nine, carry_in, carry_case,
            trained); one entry per example and place, for trained one per example.
        """
        n, tokens = self.digits, evaluation.inputs
        operands = {"a": tokens[:, :n], "b": tokens[:, n + 1 : 2 * n + 1]}
        by_concept = {
            name: labels(np.pad(digits, ((0, 0), (1, 0))), 10) for name, digits in operands.items()
        }
        by_concept |= {
            name: labels(np.asarray(evaluation.ground_truth[name]), classes)
            for name, classes in _CLASSES.items()
        }
        return {**by_concept, **trained_labels(evaluation)}
