"""Modular arithmetic as a full table: a o b mod p, the task on which grokking was explained (arXiv 2301.05217)."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.arrays import Count, PRNGKey
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Task
from mi_jax.errors import nearest, require
from mi_jax.tasks.sampling import minibatches

Operation = Literal["add", "subtract", "multiply", "x^2+y^2", "x^2+xy+y^2", "random"]
Split = Literal["published", "permutation"]
Format = Literal["a b =", "a b"]

_OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "x^2+y^2": lambda a, b: a * a + b * b,
    "x^2+xy+y^2": lambda a, b: a * a + a * b + b * b,
}


@dataclass(frozen=True)
class ModularArithmetic(Task):
    """All pairs (a, b) of residues mod p as tokens ``[a, b, =]``; the answer a o b mod p is read at the last position.

    Concepts:
        table [token token_other]: where pair (a, b) stands in the evaluation splits, one after the other in sorted order.
        answer [token token_other]: a o b mod p.
        residues [token]: the residue of each token and class: 0 to p - 1 (what a Fourier basis of weights needs).
        cyclic_answer [token token_other]: the answer, where it is a character's argument: for addition and subtraction,
            whose tables are group tables of Z_p (what the Fourier measures of logits need).
        distance [token token_other]: a - b mod p for addition, a + b for subtraction, for odd p: with the answer it tells the
            pair.

    Attributes:
        p: the modulus; tokens 0 to p - 1 are residues, p is '='.
        operation: o; "random" is a table of labels drawn with ``numpy.random.default_rng(split_seed)``: nothing to generalise.
        fraction: share of the p^2 pairs trained on, rounded down to whole pairs.
        split: "published": Python's ``random.Random(seed).shuffle`` of the pairs in lexicographic order, the first are
            trained on (as in the code of arXiv 2301.05217); "permutation": the same with ``numpy.random.default_rng(seed)``.
        split_seed: the seed of the split, shared by all seeds of a run.
        split_per_seed: whether each seed of a run has a split of its own, drawn with split_seed + seed.
        format: the tokens: ``[a, b, =]`` with '=' as token p, or ``[a, b]``.
        batch: examples a step; None trains on all of them in every step.
    """

    p: int = 113
    operation: Operation = "add"
    fraction: float = 0.3
    split: Split = "published"
    split_seed: int = 0
    split_per_seed: bool = False
    format: Format = "a b ="
    batch: int | None = None

    paper: ClassVar[str] = "arXiv 2301.05217"

    def __post_init__(self) -> None:
        require(isinstance(self.p, int) and self.p >= 2, f"p={self.p}: the modulus must be a whole number of at least 2")
        known = get_args(Operation)
        require(self.operation in known, f"operation={self.operation!r} is unknown; {nearest(str(self.operation), known)}")
        require(self.split in get_args(Split), f"split={self.split!r}: must be one of {get_args(Split)}")
        require(self.format in get_args(Format), f"format={self.format!r}: must be one of {get_args(Format)}")
        require(0 < self.fraction < 1, f"fraction={self.fraction}: the trained share must lie between 0 and 1, both excluded")
        require(
            0 < self._trained < self.p**2,
            f"fraction={self.fraction} of {self.p**2} pairs leaves {self._trained} to train on and {self.p**2 - self._trained}"
            " to test on; both must be at least 1",
        )
        require(self.split_seed >= 0, f"split_seed={self.split_seed}: must be at least 0")
        require(
            self.batch is None or (isinstance(self.batch, int) and 1 <= self.batch <= self._trained),
            f"batch={self.batch}: must be a whole number from 1 to the {self._trained} trained pairs, or None for all of them",
        )

    @classmethod
    def smallest(cls) -> "ModularArithmetic":
        """Addition mod 7, half of the 49 pairs."""
        return cls(p=7, fraction=0.5)

    @property
    def _trained(self) -> int:
        return int(self.fraction * self.p**2)

    @property
    def per_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the data differ by seed."""
        return self.split_per_seed

    @property
    def inputs(self) -> Inputs:
        """Tokens [a, b, =] or [a, b]."""
        p = self.p
        if self.format == "a b":
            return Inputs("tokens", vocabulary=p, positions=2, classes=p, alphabet=((0, p), (0, p)))
        return Inputs("tokens", vocabulary=p + 1, positions=3, classes=p, alphabet=((0, p), (0, p), (p, p + 1)))

    @property
    def read(self) -> tuple[int, ...]:
        """The answer is read at the last position."""
        return (len(self.inputs.alphabet) - 1,)

    def order(self, seed: int = 0) -> Int[np.ndarray, " pair"]:
        """The pairs' flat indices a p + b in the order of the split: the first ``int(fraction p^2)`` are trained on."""
        split_seed = self.split_seed + (seed if self.split_per_seed else 0)
        pairs = list(range(self.p**2))
        if self.split == "published":
            random.Random(split_seed).shuffle(pairs)
            return np.array(pairs, np.int32)
        return np.random.default_rng(split_seed).permutation(self.p**2).astype(np.int32)

    def examples(self, pairs: Int[np.ndarray, " pair"]) -> Batch:
        """The examples of flat pair indices."""
        a, b = np.divmod(pairs.astype(np.int64), self.p)
        if self.operation == "random":
            answers = np.random.default_rng(self.split_seed).integers(self.p, size=(self.p, self.p))[a, b]
        else:
            answers = _OPERATIONS[self.operation](a, b) % self.p
        tokens = [a, b, np.full_like(a, self.p)][: self.inputs.positions]
        inputs = np.stack(tokens, axis=1).astype(np.int32)
        return Batch(jnp.asarray(inputs), jnp.asarray(answers[:, None], jnp.int32), jnp.ones((len(pairs), 1)))

    def data(self, seed: int) -> Batch:
        """The trained pairs, in the order of the split."""
        return self.examples(self.order(seed)[: self._trained])

    def batches(self, data: Batch, key: PRNGKey, start: Count, n: Count) -> Feed:
        """All trained pairs in every step, or minibatches of ``batch``."""
        if self.batch is None:
            return lambda i: data
        indices = minibatches(key, self._trained, self.batch, start, n)

        def feed(i: Count) -> Batch:
            rows: Int[Array, " batch"] = indices(i)
            return Batch(data.inputs[rows], data.targets[rows], data.weights[rows])

        return feed

    def evaluation(self, data: Batch, key: PRNGKey) -> Evaluation:
        """Splits "train" and "test", which together are the full table."""
        a, b = np.asarray(data.inputs).T[:2]
        trained = a * self.p + b
        rest = np.setdiff1d(np.arange(self.p**2), trained)
        place = np.empty(self.p**2, np.int32)
        # Splits are concatenated in sorted order: test, then train.
        place[rest], place[trained] = np.arange(len(rest)), len(rest) + np.arange(len(trained))
        answer = self.examples(np.arange(self.p**2)).targets.reshape(self.p, self.p)
        residues = jnp.arange(self.p)
        concepts = {"table": jnp.asarray(place.reshape(self.p, self.p)), "answer": answer, "residues": residues}
        if self.operation in ("add", "subtract"):
            concepts["cyclic_answer"] = answer
            if self.p % 2:
                sign = -1 if self.operation == "add" else 1
                concepts["distance"] = (residues[:, None] + sign * residues[None, :]) % self.p
        return Evaluation({"train": data, "test": self.examples(rest)}, concepts)
