"""Repeated sequences, whose next token can be predicted by induction (arXiv 2209.11895)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError, check_choice
from mi_jax.basics.fields import accepts_old_names, renamed
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, TaskSize, labels
from mi_jax.tasks.sampling import (
    LARGEST_INDEX,
    LONGEST_INPUT,
    check_at_least,
    distinct,
    example_bytes,
)

Scored = Literal["repeated", "all"]
"""Choices of the answers that have weight in the loss: see ``RepeatedSequences``."""


@accepts_old_names
@dataclass(frozen=True)
class RepeatedSequences(Task):
    """A start token, L different tokens, and the same L tokens again. The answer at every position
    but the last is the next token.

    Tokens are 0 to V - 1; the start token is V. The answers at positions L + 1 to 2 L - 1 can be
    predicted by induction: the present token occurred before, and the answer is the token that
    followed it then. The L + 1 answers before them cannot be predicted. They have weight only with
    ``scored="all"``. Sequences are drawn uniformly, fresh in every step.

    A model that knows positions may instead look back by L - 1 positions, whatever the tokens are.
    Activation patching tells the two mechanisms apart.

    Split:
        test: different sequences.

    Ground truth (``example`` as in the split; ``position`` as in ``read``, 0 to 2 L - 1):
        previous_occurrence [example position]: last earlier position that holds the same token; -1
            if there is none.
        repeated [position]: whether the answer can be predicted by induction.
        previous_token [example position]: token one position back; the start token if there is
            none.
        token_two_back [example position]: token two positions back; the start token if there is
            none.

    Labels for probes [example position], with their number of classes:
        token [V + 1]: token at the position.
        previous_token, token_two_back [V + 1]: as above.
        answer [V]: next token.
        repeated [2]: as above.

    Attributes:
        symbols: number V of tokens beside the start token.
        length: number L of tokens in a half, at most V.
        scored: answers that have weight in the loss. "repeated": those that can be predicted by
            induction. "all": all of them.
        batch_size: sequences per step.
        test_examples: number of different sequences in the split "test".
        split_seed: seed of the split, shared by all seeds of a run.
    """

    symbols: int = 16
    length: int = 16
    scored: Scored = "repeated"
    batch_size: int = renamed("batch", 64)
    test_examples: int = 64
    split_seed: int = 0

    paper: ClassVar[str] = "arXiv 2209.11895"

    def __post_init__(self) -> None:
        check_at_least(self, symbols=2, length=2, batch_size=1, test_examples=1, split_seed=0)
        if self.length > self.symbols:
            raise ConfigError(
                f"length={self.length}: must be at most symbols={self.symbols}, because the tokens"
                " of a half are all different."
            )
        check_choice("scored", self.scored, get_args(Scored))
        if self.symbols >= LARGEST_INDEX or 2 * self.length + 1 > LONGEST_INPUT:
            raise ConfigError(
                f"symbols={self.symbols} and length={self.length}: there must be fewer than"
                f" {LARGEST_INDEX} symbols, and at most {LONGEST_INPUT} positions (2 length + 1)."
            )
        # 64 tokens make more sequences than any set can hold.
        sequences = math.perm(self.symbols, min(self.length, 64))
        if self.test_examples > sequences:
            raise ConfigError(
                f"test_examples={self.test_examples}: there are only {sequences} different"
                " sequences. Take fewer."
            )

    @classmethod
    def smallest(cls) -> "RepeatedSequences":
        """Halves of four of six tokens."""
        return cls(symbols=6, length=4, batch_size=16, test_examples=32)

    @property
    def inputs(self) -> Inputs:
        """Description of the inputs: the start token and 2 L tokens."""
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
        """All positions but the last, 0 to 2 L - 1."""
        return tuple(range(2 * self.length))

    def size(self) -> TaskSize:
        """Size of the sequences of a step, and of the test set with its facts."""
        answers = 2 * self.length
        each = example_bytes(self.inputs, answers)
        return TaskSize(
            batch=self.batch_size,
            examples=self.test_examples,
            data=0,
            evaluation=self.test_examples * (each + 3 * 4 * answers) + answers,
            making=self.test_examples * 16 * self.symbols,
            # A step draws its sequences by sorting every symbol by a random number.
            drawing=self.batch_size * 16 * self.symbols,
        )

    def examples_of(self, halves: Int[Array | np.ndarray, "b half"]) -> Batch:
        """Make the examples whose halves are these tokens."""
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
        """Whether the answer at each position that is read can be predicted by induction."""
        return np.arange(2 * self.length) > self.length

    def data(self, seed: int) -> tuple[()]:
        """An empty tuple, since every step draws fresh sequences."""
        return ()

    def batches(self, data: tuple[()], key: PRNGKey, start: Count, n: Count) -> Feed:
        """Make fresh sequences for each step s, drawn from ``fold_in(key, s)``.

        Args:
            data: the result of ``data``.
            key: key of the random stream "data".
            start: first step, traced.
            n: number of steps, traced; at most ``LONGEST_CHUNK``.
        """
        return lambda i: self.examples_of(self._fresh(jax.random.fold_in(key, start + i)))

    def _fresh(self, key: PRNGKey) -> Int[Array, "b half"]:
        """Draw the halves of one step."""
        rows = jnp.broadcast_to(jnp.arange(self.symbols)[None], (self.batch_size, self.symbols))
        return jax.random.permutation(key, rows, axis=1, independent=True)[:, : self.length]

    def _drawn(self) -> Any:
        """Make a function count -> uniformly drawn halves, [count half]."""
        rng = np.random.default_rng((self.split_seed, 0))
        rows = np.arange(self.symbols)[None]
        return lambda count: rng.permuted(np.repeat(rows, count, axis=0), axis=1)[:, : self.length]

    def evaluation(self, data: tuple[()], key: PRNGKey) -> Evaluation:
        """Make the split "test".

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure".
        """
        batch = self.examples_of(distinct(self._drawn(), self.test_examples))
        tokens = np.asarray(batch.inputs)
        before = np.concatenate([tokens[:, :1], tokens[:, :1], tokens], axis=1)
        positions = np.arange(2 * self.length)[None]
        previous = np.where(self._repeated[None], positions - self.length, -1)
        ground_truth = {
            "previous_occurrence": previous.repeat(len(tokens), axis=0),
            "repeated": self._repeated,
            "previous_token": before[:, 1:-2],
            "token_two_back": before[:, :-3],
        }
        return Evaluation(
            {"test": batch}, {name: jnp.asarray(fact) for name, fact in ground_truth.items()}
        )

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels for probes: tokens, the answer, and whether induction predicts it.

        Returns:
            Labels by name (token, previous_token, token_two_back, answer, repeated); one entry per
            example and position.
        """
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
