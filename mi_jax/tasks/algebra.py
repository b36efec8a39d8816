"""Modular arithmetic, a o b mod p.

Grokking was found on this task (arXiv 2201.02177) and explained on it (arXiv 2301.05217).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.errors import ConfigError, check_choice
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts import Labels, labels
from mi_jax.tasks.operations import DIVIDING, Operation, is_prime, logarithms, operate
from mi_jax.tasks.pairs import PairTask
from mi_jax.tasks.sampling import LARGEST_INDEX


@accepts_old_names
@dataclass(frozen=True)
class ModularArithmetic(PairTask):
    """All pairs (a, b) of residues mod p as tokens ``[a, b, =]``; the answer a o b mod p is read at
    the last position.

    Ground truth, beside that of every ``PairTask`` (table, answer, corrupted, right_answer):
        residues [token]: residue of each token and of each class, 0 to p - 1, which the Fourier
            basis of weights needs.
        cyclic_answer [token token_other]: the answer, for addition and subtraction only. Their
            tables are group tables of Z_p, which the Fourier measures of logits need.
        distance [token token_other]: for odd p, a - b mod p for addition and a + b mod p for
            subtraction. Together with the answer it determines the pair.
        logarithm [token]: for multiplication and division mod a prime, the k with g^k = residue,
            where g is the smallest primitive root; -1 for the residue 0, which has none. If
            residues are multiplied (divided), logarithms add (subtract) mod p - 1.

    Labels for probes, beside those of every ``PairTask``, with their number of classes:
        a_parity, b_parity, answer_parity [2]: parity of the residue, a whole number 0 to p - 1.
        difference, sum, product [p]: a - b, a + b and a b mod p, without the task's own operation.
            No answer depends on them.
        larger [p]: max(a, b).
        order [3]: 0 for a < b, 1 for a = b, 2 for a > b.
        carry [2]: for addition whether a + b >= p, for subtraction whether a - b < 0.
        a_square, b_square, answer_square [3]: for an odd prime p, 0 for the residue 0, 1 for
            nonzero squares and 2 for all other residues: the cosets of the squares.

    Attributes:
        p: the modulus. Tokens 0 to p - 1 are residues, special tokens follow.
        operation: the operation o, see ``operations.operate``. "divide" has only the pairs with
            b != 0, and therefore no ``table``. "random" is a table of answers drawn with
            ``numpy.random.default_rng(split_seed)``, so there is nothing to generalise.
    """

    p: int = 113
    operation: Operation = "add"

    paper: ClassVar[str] = "arXiv 2301.05217"

    def __post_init__(self) -> None:
        if not (isinstance(self.p, int) and 2 <= self.p <= LARGEST_INDEX):
            raise ConfigError(
                f"p={self.p}: the modulus must be a whole number of at least 2, and at most"
                f" {LARGEST_INDEX}."
            )
        check_choice("operation", self.operation, get_args(Operation))
        if self.operation in DIVIDING and not is_prime(self.p):
            raise ConfigError(
                f"operation={self.operation!r} needs a prime modulus, so that every residue but 0"
                f" has an inverse. p={self.p} is not prime. The next prime is"
                f" {_next_prime(self.p)}."
            )
        super().__post_init__()

    @classmethod
    def smallest(cls) -> "ModularArithmetic":
        """Addition mod 23, trained on 60 % of the pairs."""
        return cls(p=23, fraction=0.6)

    @property
    def elements(self) -> int:
        """Number of residues, p."""
        return self.p

    @property
    def domain(self) -> Int[np.ndarray, " pair"]:
        """Flat indices of all pairs; for division of those with b != 0."""
        pairs = np.arange(self.p**2)
        return pairs[pairs % self.p != 0] if self.operation == "divide" else pairs

    @property
    def pair_count(self) -> int:
        """p^2, or p (p - 1) for division."""
        return self.p * (self.p - 1) if self.operation == "divide" else self.p**2

    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """Right answers a o b mod p.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
        """
        if self.operation == "random":
            rng = np.random.default_rng(self.split_seed)
            return rng.integers(self.p, size=(self.p, self.p))[a, b]
        return operate(self.operation, a, b, self.p)

    def facts(self) -> Mapping[str, Array]:
        """Compute the ground truth of the residues.

        Returns:
            Arrays by name: residues; cyclic_answer and (for odd p) distance for addition and
            subtraction; logarithm for multiplication and division mod a prime.
        """
        residues = jnp.arange(self.p)
        facts = {"residues": residues}
        if self.operation in ("add", "subtract"):
            sign = -1 if self.operation == "add" else 1
            facts["cyclic_answer"] = (residues[:, None] - sign * residues[None, :]) % self.p
            if self.p % 2:
                facts["distance"] = (residues[:, None] + sign * residues[None, :]) % self.p
        if self.operation in ("multiply", "divide") and is_prime(self.p):
            facts["logarithm"] = jnp.asarray(logarithms(self.p), jnp.int32)
        return facts

    def pair_labels(
        self,
        a: Int[np.ndarray, " pair"],
        b: Int[np.ndarray, " pair"],
        answer: Int[np.ndarray, " pair"],
    ) -> Mapping[str, Labels]:
        """Make the labels of residues: parities, order, other operations, the carry and squares.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
            answer: right answers, [pair].

        Returns:
            Labels by name, such as ``a_parity``, as the class lists them; one entry per pair.
        """
        p, each = self.p, {"a": a, "b": b, "answer": answer}
        others = {
            "subtract": ("difference", a - b),
            "add": ("sum", a + b),
            "multiply": ("product", a * b),
        }
        by_concept = {f"{name}_parity": labels(x % 2, 2) for name, x in each.items()}
        by_concept |= {
            name: labels(x % p, p)
            for operation, (name, x) in others.items()
            if operation != self.operation
        }
        by_concept["larger"] = labels(np.maximum(a, b), p)
        by_concept["order"] = labels(1 + np.sign(a - b), 3)
        if self.operation in ("add", "subtract"):
            by_concept["carry"] = labels(a + b >= p if self.operation == "add" else a < b, 2)
        if p > 2 and is_prime(p):
            squares = np.isin(np.arange(p), np.arange(1, p) ** 2 % p)
            kinds = np.where(np.arange(p) == 0, 0, np.where(squares, 1, 2))
            by_concept |= {f"{name}_square": labels(kinds[x], 3) for name, x in each.items()}
        return by_concept


def _next_prime(p: int) -> int:
    return next(q for q in range(p + 1, 2 * p + 2) if is_prime(q))
