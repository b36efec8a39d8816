"""Modular arithmetic: a o b mod p, the task on which grokking was found (arXiv 2201.02177) and
explained (arXiv 2301.05217).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts import Labels, labels
from mi_jax.tasks.operations import DIVIDING, Operation, is_prime, logarithms, operate
from mi_jax.tasks.pairs import PairTask


@accepts_old_names
@dataclass(frozen=True)
class ModularArithmetic(PairTask):
    """All pairs (a, b) of residues mod p as tokens ``[a, b, =]``; the answer a o b mod p is read at
    the last position.

    Concepts, beside those of every task on pairs (``PairTask``: table, answer, corrupted,
    right_answer):
        residues [token]: the residue of each token and class: 0 to p - 1 (what a Fourier basis of
        weights needs). cyclic_answer [token token_other]: the answer, where it is a character's
        argument: for addition and subtraction,
            whose tables are group tables of Z_p (what the Fourier measures of logits need).
        distance [token token_other]: a - b mod p for addition, a + b for subtraction, for odd p:
        with the answer it tells the
            pair.
        logarithm [token]: for multiplication and division mod a prime, k with g^k = residue, g the
        smallest primitive root; -1
            for 0, which has none. Logarithms add (subtract) mod p - 1 where residues are multiplied
            (divided).

    Labels for probes, beside those of every task on pairs:
        a_parity, b_parity, answer_parity [2]: of the residue, from 0 to p - 1, as a whole number.
        difference, sum, product [p]: a - b, a + b and a b mod p, those that aren't the task:
        whoever answers needs none of them. larger [p]: max(a, b). order [3]: a < b, a = b, a > b.
        carry [2]: for addition whether a + b reaches p, for subtraction whether a - b is negative.
        a_square, b_square, answer_square [3]: for an odd prime p, 0 for the residue 0, 1 for
        squares of other residues, 2 for the
            rest: the cosets of the squares.

    Attributes:
        p: the modulus; tokens 0 to p - 1 are residues, special ones follow.
        operation: o, see ``operations.operate``. "divide" has the pairs with b != 0 alone, and
            therefore no ``table``; "random" is a table of labels drawn with
            ``numpy.random.default_rng(split_seed)``: nothing to generalise.
    """

    p: int = 113
    operation: Operation = "add"

    paper: ClassVar[str] = "arXiv 2301.05217"

    def __post_init__(self) -> None:
        require(
            isinstance(self.p, int) and self.p >= 2,
            f"p={self.p}: the modulus must be a whole number of at least 2",
        )
        known = get_args(Operation)
        require(
            self.operation in known,
            f"operation={self.operation!r} is unknown; {nearest(str(self.operation), known)}",
        )
        require(
            self.operation not in DIVIDING or is_prime(self.p),
            f"operation={self.operation!r} needs a prime modulus, so that every residue but 0 has"
            f" an inverse; p={self.p} is none, {_next_prime(self.p)} is the next",
        )
        super().__post_init__()

    @classmethod
    def smallest(cls) -> "ModularArithmetic":
        """Addition mod 23 on six tenths of the pairs."""
        return cls(p=23, fraction=0.6)

    @property
    def elements(self) -> int:
        """p."""
        return self.p

    @property
    def domain(self) -> Int[np.ndarray, " pair"]:
        """All pairs; for division those with b != 0."""
        pairs = np.arange(self.p**2)
        return pairs[pairs % self.p != 0] if self.operation == "divide" else pairs

    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """a o b mod p."""
        if self.operation == "random":
            return np.random.default_rng(self.split_seed).integers(self.p, size=(self.p, self.p))[
                a, b
            ]
        return operate(self.operation, a, b, self.p)

    def facts(self) -> Mapping[str, Array]:
        """See the class."""
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
        """See the class."""
        p, each = self.p, {"a": a, "b": b, "answer": answer}
        others = {
            "subtract": ("difference", a - b),
            "add": ("sum", a + b),
            "multiply": ("product", a * b),
        }
        found = {f"{name}_parity": labels(x % 2, 2) for name, x in each.items()}
        found |= {
            name: labels(x % p, p)
            for operation, (name, x) in others.items()
            if operation != self.operation
        }
        found |= {"larger": labels(np.maximum(a, b), p), "order": labels(1 + np.sign(a - b), 3)}
        if self.operation in ("add", "subtract"):
            found["carry"] = labels(a + b >= p if self.operation == "add" else a < b, 2)
        if p > 2 and is_prime(p):
            squares = np.isin(np.arange(p), np.arange(1, p) ** 2 % p)
            kinds = np.where(np.arange(p) == 0, 0, np.where(squares, 1, 2))
            found |= {f"{name}_square": labels(kinds[x], 3) for name, x in each.items()}
        return found


def _next_prime(p: int) -> int:
    return next(q for q in range(p + 1, 2 * p + 2) if is_prime(q))
