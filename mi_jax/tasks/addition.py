"""Addition of numbers with several digits, one answer digit after the other, the most significant
first (arXiv 2301.05217).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import require
from mi_jax.basics.fields import accepts_old_names, renamed
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, labels, trained_labels
from mi_jax.tasks.sampling import distinct, minibatches

PLUS, EQUALS = 10, 11

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
    """The sum of two N-digit numbers as tokens ``a + b = c``, leading zeros kept, the most
    significant digit first.

    Each of the N + 1 digits of c is read where its predecessor stands ('=' before the first), with
    the right digits before it in the input, which ends with the last but one. Digits are tokens 0
    to 9, '+' is 10 and '=' is 11. The loss is the mean over the N + 1 answers of every example.
    Pairs are drawn uniformly, fresh in every step or as a finite set; arXiv 2301.05217 trains on
    both, the finite set has 700.

    Splits: "test", drawn uniformly and not in a finite training set; "cascade", the hardest cases,
        where the units make a carry
    that travels through all other places, each summing to nine; and "train", where the set is
    finite.

    Concepts (``example`` as in the splits one after the other, in sorted order; ``place`` as in
    ``read``; the names of arXiv 2310.13121 in brackets):
        places [place]: the power of ten of each answer: N, N - 1, ..., 0.
        answer [example place]: the digit of the sum.
        base_sum [example place]: (a_i + b_i) mod 10 of that place, 0 at N (base add); answer =
        (base_sum + carry_in) mod 10. makes_carry [example place]: whether a_i + b_i >= 10 (make
        carry 1). sum_nine [example place]: whether a_i + b_i = 9 (make sum 9). carry_in [example
        place]: whether the places to the right carry into it (use carry 1). carry_case [example
        place]: 0 without a carry into it, 1 where its neighbour makes the carry, 2 where the carry
        came
            through a neighbour that sums to nine (use sum 9).

    Labels for probes [example place]: ``a`` and ``b``, the operands' digits of the place (0 at N);
    ``answer``, ``base_sum`` [10]; ``makes_carry``, ``sum_nine``, ``carry_in`` [2]; ``carry_case``
    [3]. And ``trained`` [example].

    Attributes:
        digits: N.
        examples: different pairs (a, b) trained on; None draws fresh ones in every step.
        batch_size: examples a step; None trains on the whole finite set in every step.
        test_examples: pairs of the split "test". cascade_examples: pairs of the split "cascade"; 0
            leaves it out.
        split_seed: of the sets, shared by all seeds of a run.
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
        for name, least in (
            ("digits", 1),
            ("test_examples", 1),
            ("cascade_examples", 0),
            ("split_seed", 0),
        ):
            value = getattr(self, name)
            require(
                isinstance(value, int) and value >= least,
                f"{name}={value}: must be a whole number of at least {least}",
            )
        require(
            self.examples is None or (isinstance(self.examples, int) and self.examples >= 1),
            f"examples={self.examples}: must be a whole number of at least 1, or None for fresh"
            " ones in every step",
        )
        held, pairs, cascades = (
            (self.examples or 0) + self.test_examples,
            100**self.digits,
            self._cascades,
        )
        require(
            self.cascade_examples == 0 or held + self.cascade_examples <= cascades,
            f"cascade_examples={self.cascade_examples}: {self.digits}-digit numbers have {cascades}"
            f" such pairs, of which {held} might be trained on or in the test split; take fewer, or"
            " 0 to leave that split out",
        )
        require(
            held + self.cascade_examples <= pairs,
            f"examples={self.examples}, test_examples={self.test_examples} and"
            f" cascade_examples={self.cascade_examples}: there are only {pairs} different pairs of"
            f" {self.digits}-digit numbers; take fewer",
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

    @property
    def _cascades(self) -> int:
        """Pairs whose carry travels from the units through every other place: 45 pairs of units, 10
        of each other place.
        """
        return 45 * 10 ** (self.digits - 1) if self.digits > 1 else 0

    @classmethod
    def smallest(cls) -> "MultiDigitAddition":
        """Two digits, fresh examples."""
        return cls(digits=2, batch_size=16, test_examples=48, cascade_examples=16)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the data differ by seed."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Tokens a + b = and the answer's digits but the last; the answer's first is 0 or 1."""
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
        """The '=' and the answer's digits but the last: N + 1 positions."""
        return tuple(range(2 * self.digits + 1, 3 * self.digits + 2))

    def examples_of(self, pairs: Int[Array | np.ndarray, "b 2 digit"]) -> Batch:
        """The examples of pairs of numbers, each as its digits, the most significant first."""
        xp = np if isinstance(pairs, np.ndarray) else jnp
        answer, sign = self.facts(pairs)["answer"], xp.ones((len(pairs), 1), np.int32)
        inputs = xp.concatenate(
            [pairs[:, 0], PLUS * sign, pairs[:, 1], EQUALS * sign, answer[:, :-1]], axis=1
        )
        return Batch(jnp.asarray(inputs, jnp.int32), jnp.asarray(answer), jnp.ones(answer.shape))

    def facts(
        self, pairs: Int[Array | np.ndarray, "b 2 digit"]
    ) -> dict[str, Int[Array | np.ndarray, "b place"]]:
        """The concepts of each pair at each place of the answer, the most significant first."""
        # Sets that are drawn once are NumPy's: nothing is compiled for them.
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
        rng = np.random.default_rng(seed)
        return lambda count: rng.integers(10, size=(count, 2, self.digits), dtype=np.int8)

    def _cascading(self, *seed: int) -> Any:
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
        """The finite set; nothing where every step draws its own."""
        if self.examples is None:
            return ()
        split_seed = self.split_seed + (seed if self.split_per_seed else 0)
        return self.examples_of(distinct(self._pairs(split_seed, 0), self.examples))

    def batches(self, data: Batch | tuple[()], key: PRNGKey, start: Count, n: Count) -> Feed:
        """Fresh examples, those of step s drawn from ``fold_in(key, s)``; or the finite set, whole
        or in minibatches.
        """
        if not isinstance(data, Batch):
            assert self.batch_size is not None
            shape = (self.batch_size, 2, self.digits)
            return lambda i: self.examples_of(
                jax.random.randint(jax.random.fold_in(key, start + i), shape, 0, 10)
            )
        if self.batch_size is None:
            return lambda i: data
        assert self.examples is not None
        indices = minibatches(key, self.examples, self.batch_size, start, n)

        def feed(i: Count) -> Batch:
            rows = indices(i)
            return Batch(data.inputs[rows], data.targets[rows], data.weights[rows])

        return feed

    def evaluation(self, data: Batch | tuple[()], key: PRNGKey) -> Evaluation:
        """Splits "test", "cascade" and, where the set is finite, "train"; they share no pair."""
        pairs = {} if not isinstance(data, Batch) else {"train": self._read_back(data)}
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
        concepts = {"places": np.arange(self.digits, -1, -1), **facts}
        return Evaluation(
            batches, {name: jnp.asarray(fact, jnp.int32) for name, fact in concepts.items()}
        )

    def _read_back(self, data: Batch) -> Int[np.ndarray, "b 2 digit"]:
        tokens, n = np.asarray(data.inputs, np.int8), self.digits
        return np.stack([tokens[:, :n], tokens[:, n + 1 : 2 * n + 1]], axis=1)

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """See the class."""
        n, tokens = self.digits, evaluation.inputs
        digits = {"a": tokens[:, :n], "b": tokens[:, n + 1 : 2 * n + 1]}
        found = {name: labels(np.pad(x, ((0, 0), (1, 0))), 10) for name, x in digits.items()}
        found |= {
            name: labels(np.asarray(evaluation.ground_truth[name]), classes)
            for name, classes in _CLASSES.items()
        }
        return {**found, **trained_labels(evaluation)}
