"""Sequences that repeat themselves: what a network tells by induction, the next token where the
present one stood before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import nearest, require
from mi_jax.basics.fields import accepts_old_names, renamed
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, labels
from mi_jax.tasks.sampling import distinct

Scored = Literal["repeated", "all"]


@accepts_old_names
@dataclass(frozen=True)
class RepeatedSequences(Task):
    """A start token, then L different tokens, then the same L again; at every position but the last
    the next token is the answer.

    Tokens are 0 to V - 1, the start token is V. The answers at positions L + 1 to 2 L - 1 can be
    told by induction (arXiv 2209.11895): what followed the present token before. The L + 1 before
    them can't, and have weight only with ``scored="all"``. Sequences are drawn uniformly, fresh in
    every step. A model that knows positions may also look back by L - 1, whatever the
    tokens are: patches tell the two apart.

    Concepts (``example`` as in the split; ``position`` as in ``read``, 0 to 2 L - 1):
        previous_occurrence [example position]: the last earlier position that holds the same token;
        -1 where there is none. repeated [position]: whether the answer can be told by induction.
        previous_token [example position]: the token one position back; the start token where there
        is none. token_two_back [example position]: the token two positions back; the start token
        where there is none.

    Labels for probes [example position]: ``token``, the one that stands there, ``previous_token``
    and ``token_two_back`` [V + 1]; ``answer`` [V]; ``repeated`` [2], whether the answer can be
    told.

    Attributes:
        symbols: V. length: L, at most V.
        scored: which answers have weight in the loss: those that can be told by induction, or all.
        batch_size: sequences a step. test_examples: different sequences of the split "test".
        split_seed: of the split, shared by all seeds of a run.
    """

    symbols: int = 16
    length: int = 16
    scored: Scored = "repeated"
    batch_size: int = renamed("batch", 64)
    test_examples: int = 64
    split_seed: int = 0

    paper: ClassVar[str] = "arXiv 2209.11895"

    def __post_init__(self) -> None:
        for name, least in (
            ("symbols", 2),
            ("length", 2),
            ("batch_size", 1),
            ("test_examples", 1),
            ("split_seed", 0),
        ):
            value = getattr(self, name)
            require(
                isinstance(value, int) and value >= least,
                f"{name}={value}: must be a whole number of at least {least}",
            )
        require(
            self.length <= self.symbols,
            f"length={self.length}: the tokens of a half are all different, so there are at most"
            f" symbols={self.symbols} of them",
        )
        require(
            self.scored in get_args(Scored),
            f"scored={self.scored!r} is unknown; {nearest(self.scored, get_args(Scored))}",
        )
        there = math.perm(self.symbols, self.length)
        require(
            self.test_examples <= there,
            f"test_examples={self.test_examples}: there are only {there} different sequences; take"
            " fewer",
        )

    @classmethod
    def smallest(cls) -> "RepeatedSequences":
        """Four of six tokens."""
        return cls(symbols=6, length=4, batch_size=16, test_examples=32)

    @property
    def inputs(self) -> Inputs:
        """The start token and two times L tokens."""
        alphabet = ((self.symbols, self.symbols + 1), *((0, self.symbols),) * (2 * self.length))
        count = len(alphabet)
        return Inputs(
            "tokens",
            self.symbols + 1,
            positions=count,
            classes=self.symbols,
            alphabet=alphabet,
            causal=True,
        )

    @property
    def read(self) -> tuple[int, ...]:
        """All positions but the last."""
        return tuple(range(2 * self.length))

    def examples_of(self, halves: Int[Array | np.ndarray, "b half"]) -> Batch:
        """The examples of the tokens of the first half."""
        halves = jnp.asarray(halves, jnp.int32)
        start = jnp.full((len(halves), 1), self.symbols, jnp.int32)
        tokens = jnp.concatenate([start, halves, halves], axis=1)
        scored = self._repeated if self.scored == "repeated" else np.ones(2 * self.length, bool)
        weights = jnp.broadcast_to(
            jnp.asarray(scored, jnp.float32)[None], (len(halves), 2 * self.length)
        )
        return Batch(tokens, tokens[:, 1:], weights)

    @property
    def _repeated(self) -> np.ndarray:
        return np.arange(2 * self.length) > self.length

    def data(self, seed: int) -> tuple[()]:
        """Nothing: every step draws its own."""
        return ()

    def batches(self, data: tuple[()], key: PRNGKey, start: Count, n: Count) -> Feed:
        """Fresh sequences, those of step s drawn from ``fold_in(key, s)``."""
        return lambda i: self.examples_of(self._fresh(jax.random.fold_in(key, start + i)))

    def _fresh(self, key: PRNGKey) -> Int[Array, "b half"]:
        rows = jnp.broadcast_to(jnp.arange(self.symbols)[None], (self.batch_size, self.symbols))
        return jax.random.permutation(key, rows, axis=1, independent=True)[:, : self.length]

    def _drawn(self) -> Any:
        rng = np.random.default_rng((self.split_seed, 0))
        rows = np.arange(self.symbols)[None]
        return lambda count: rng.permuted(np.repeat(rows, count, axis=0), axis=1)[:, : self.length]

    def evaluation(self, data: tuple[()], key: PRNGKey) -> Evaluation:
        """The split "test"."""
        batch = self.examples_of(distinct(self._drawn(), self.test_examples))
        tokens = np.asarray(batch.inputs)
        before = np.concatenate([tokens[:, :1], tokens[:, :1], tokens], axis=1)
        places = np.arange(2 * self.length)[None]
        concepts = {
            "previous_occurrence": (
                np.where(self._repeated[None], places - self.length, -1).repeat(len(tokens), axis=0)
            ),
            "repeated": self._repeated,
            "previous_token": before[:, 1:-2],
            "token_two_back": before[:, :-3],
        }
        return Evaluation(
            {"test": batch}, {name: jnp.asarray(fact) for name, fact in concepts.items()}
        )

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """See the class."""
        back = {
            name: np.asarray(evaluation.ground_truth[name])
            for name in ("previous_token", "token_two_back")
        }
        tokens = {"token": evaluation.inputs[:, :-1], **back}
        repeated = np.broadcast_to(self._repeated[None], evaluation.targets.shape)
        return {
            **{name: labels(x, self.symbols + 1) for name, x in tokens.items()},
            "answer": labels(evaluation.targets, self.symbols),
            "repeated": labels(repeated, 2),
        }
