"""Tasks: the data that a model is trained on, and what is known to be true of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree, Shaped

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts.labels import Labels, labels, token_labels


@dataclass(frozen=True)
class Inputs:
    """What a task feeds a model: all that a model is built from.

    Attributes:
        kind: tokens [batch position], or floats [batch position feature].
        vocabulary: how many token ids there are, special ones included.
        positions: length of the input.
        classes: how many answers the task has; a model may have more outputs.
        alphabet: by position the half-open range (first, end) of the tokens that can stand there.
        features: numbers at a position, where these are floats; 0 for tokens.
        causal: whether answers stand in the input after the position they are read at, so that a
            model may only look back.
    """

    kind: Literal["tokens", "floats"]
    vocabulary: int
    positions: int
    classes: int
    alphabet: tuple[tuple[int, int], ...]
    features: int = 0
    causal: bool = False

    @property
    def varied(self) -> tuple[int, ...]:
        """The positions at which more than one token can stand."""
        return tuple(i for i, (first, end) in enumerate(self.alphabet) if end - first > 1)

    @property
    def tokens(self) -> int:
        """How many tokens carry content: ids 0 to tokens - 1; the rest are special symbols."""
        return max((self.alphabet[i][1] for i in self.varied), default=0)


class Batch(NamedTuple):
    """Examples with their answers. ``position`` runs over the positions that are read, a task's
    ``read``.
    """

    inputs: Shaped[Array | np.ndarray, "batch ..."]
    targets: Int[Array | np.ndarray, "batch position"]
    weights: Float[Array | np.ndarray, "batch position"]
    """0 where no loss is read."""
    info: Mapping[str, Array] = {}


Feed = Callable[[Count], Batch]
"""i -> the batch of step start + i."""


@accepts_old_names(concepts="ground_truth")
class Evaluation(NamedTuple):
    """The fixed examples that a run is read on, and what is known to be true of them."""

    batches: Mapping[str, Batch]
    """By split; together they hold each example once."""
    ground_truth: Mapping[str, Num[Array | np.ndarray, "..."]]
    """Exact facts by name; a task's docstring defines each. What has a row for each example holds
    those of the splits one after the other, in sorted order of their names.
    """

    @property
    def inputs(self) -> Shaped[np.ndarray, "example ..."]:
        """The inputs of all examples, those of the splits one after the other, in sorted order of
        their names.
        """
        return np.concatenate(
            [np.asarray(self.batches[split].inputs) for split in sorted(self.batches)]
        )

    @property
    def targets(self) -> Int[np.ndarray, "example position"]:
        """The answers of all examples, in the same order."""
        return np.concatenate(
            [np.asarray(self.batches[split].targets) for split in sorted(self.batches)]
        )


@dataclass(frozen=True)
class Task(ABC):
    """Data, and what is known to be true of it. Frozen and hashable: the fields are the settings."""

    per_seed: ClassVar[bool] = False
    """Whether the data differ by seed. A task for which this is a setting answers with a property.
    """
    paper: ClassVar[str] = ""
    """Where the task was studied, as ``arXiv 2301.05217``."""

    @classmethod
    def smallest(cls) -> "Task":
        """The smallest sensible setting, which trains in seconds: what tests run and
        ``--task.name`` starts from.
        """
        return cls()

    @property
    @abstractmethod
    def inputs(self) -> Inputs:
        """What a model of this task is built from."""

    @property
    @abstractmethod
    def read(self) -> tuple[int, ...]:
        """The positions at which answers are read."""

    @property
    def dim_names(self) -> Mapping[str, tuple[Any, ...]]:
        """By dim, the names of what this task has along it (its group's irreps); places are counted
        where it says nothing.
        """
        return {}

    @abstractmethod
    def data(self, seed: int) -> PyTree:
        """The arrays that batches are made of: an argument of the compiled program. The same for
        all seeds, unless per_seed.
        """

    @abstractmethod
    def batches(self, data: PyTree, key: PRNGKey, start: Count, n: Count) -> Feed:
        """The batches of steps start to start + n - 1: a pure function of (data, key, step),
        however the steps are cut.
        """

    @abstractmethod
    def evaluation(self, data: PyTree, key: PRNGKey) -> Evaluation:
        """Fixed evaluation batches by split, and concepts. Built once a run and seed."""

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """What is known of each example as a class, for probes: by concept, in the order of
        ``evaluation.inputs``.

        Unless a task says more: ``answer``, the right class; ``trained``, whether the example is of
            the split "train", where
        there are others; and the tokens that vary, ``token_i`` at position i, or where several
        positions are read ``token``, the one that stands there.
        """
        tokens = evaluation.inputs if self.inputs.kind == "tokens" else None
        if len(self.read) == 1:
            found = {"answer": labels(evaluation.targets[:, 0], self.inputs.classes)}
            found |= {} if tokens is None else token_labels(tokens, self.inputs.alphabet)
        else:
            found = {"answer": labels(evaluation.targets, self.inputs.classes)}
            found |= (
                {}
                if tokens is None
                else {"token": labels(tokens[:, list(self.read)], self.inputs.vocabulary)}
            )
        return {**found, **trained_labels(evaluation)}


def trained_labels(evaluation: Evaluation) -> dict[str, Labels]:
    """``trained``: 1 for examples of the split "train"; nothing where that is no split, or the only
    one.
    """
    splits = sorted(evaluation.batches)
    if "train" not in splits or len(splits) == 1:
        return {}
    kinds = [np.full(len(evaluation.batches[split].targets), split == "train") for split in splits]
    return {"trained": labels(np.concatenate(kinds), 2)}


LONGEST_CHUNK = 4096
"""The most steps that one call of a compiled training program makes."""
