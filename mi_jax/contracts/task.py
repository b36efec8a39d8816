"""Tasks: the data that a model is trained on, and exact facts about them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree, Shaped

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts.labels import Labels, labels, token_labels

LONGEST_CHUNK = 4096
"""Largest number of steps in one call of a compiled training program."""


@dataclass(frozen=True)
class Inputs:
    """Description of a task's inputs. A model is built from it and nothing else.

    Attributes:
        kind: "tokens" for inputs [batch position], "floats" for inputs [batch position feature].
        vocabulary: number of token ids, special tokens included; 0 for floats.
        positions: length of an input.
        classes: number of answers of the task. A model may have more outputs.
        alphabet: per position, the half-open range (first, end) of tokens that can stand there;
            empty for floats.
        features: number of floats at a position; 0 for tokens.
        causal: whether an answer also stands in the input, after the position where it is read. The
            model must then look only at earlier positions and its own.
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
        """Positions at which more than one token can stand."""
        return tuple(i for i, (first, end) in enumerate(self.alphabet) if end - first > 1)

    @property
    def tokens(self) -> int:
        """Number of tokens that carry content: ids 0 to tokens - 1. Higher ids are special."""
        return max((self.alphabet[i][1] for i in self.varied), default=0)


class Batch(NamedTuple):
    """Examples with their answers.

    Attributes:
        inputs: tokens [batch position] or floats [batch position feature].
        targets: right class of each answer, [batch position]; ``position`` runs over ``Task.read``.
        weights: weight of each answer in the loss, [batch position]; 0 where none is read.
        info: further arrays by name, each with a row per example, which travel with the batch.
    """

    inputs: Shaped[Array | np.ndarray, "batch ..."]
    targets: Int[Array | np.ndarray, "batch position"]
    weights: Float[Array | np.ndarray, "batch position"]
    info: Mapping[str, Array] = {}


Feed = Callable[[Count], Batch]
"""Function of i that gives the batch of step start + i; see ``Task.batches``."""


@accepts_old_names(concepts="ground_truth")
class Evaluation(NamedTuple):
    """Fixed examples on which a run is measured, and exact facts about them.

    Attributes:
        batches: one batch per split, by its name. Together they hold each example once.
        ground_truth: exact facts by name, each defined in the task's docstring. A fact with a row
            per example lists the splits one after another, in sorted order of their names.
    """

    batches: Mapping[str, Batch]
    ground_truth: Mapping[str, Num[Array | np.ndarray, "..."]]

    @property
    def inputs(self) -> Shaped[np.ndarray, "example ..."]:
        """Inputs of all examples: the splits one after another, in sorted order of their names."""
        return np.concatenate(
            [np.asarray(self.batches[split].inputs) for split in sorted(self.batches)]
        )

    @property
    def targets(self) -> Int[np.ndarray, "example position"]:
        """Targets of all examples, in the order of ``inputs``."""
        return np.concatenate(
            [np.asarray(self.batches[split].targets) for split in sorted(self.batches)]
        )


class TaskSize(NamedTuple):
    """Size of the arrays of a task, as its settings alone tell it, before anything is built.

    Attributes:
        batch: number of examples of one step.
        examples: number of examples of the evaluation, all splits together.
        data: bytes of ``Task.data`` of one seed.
        evaluation: bytes of ``Task.evaluation`` of one seed: batches and ground truth.
        making: bytes that are needed for a while, in addition, to make them.
        drawing: bytes that the compiled program holds to draw the batches of a chunk.
    """

    batch: int
    examples: int
    data: int
    evaluation: int
    making: int = 0
    drawing: int = 0


@dataclass(frozen=True)
class Task(ABC):
    """Data to train on, and exact facts about them.

    A subclass is a frozen dataclass whose fields are its settings: a run stores them, and hashes
    them. It implements ``inputs``, ``read``, ``data``, ``batches`` and ``evaluation``; everything
    else has a default. The methods are pure functions of their arguments and the settings.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> @dataclass(frozen=True)
        ... class Successor(Task):
        ...     symbols: int = 5
        ...
        ...     @property
        ...     def inputs(self):
        ...         n = self.symbols
        ...         return Inputs("tokens", n, positions=1, classes=n, alphabet=((0, n),))
        ...
        ...     @property
        ...     def read(self):
        ...         return (0,)
        ...
        ...     def data(self, seed):
        ...         tokens = jnp.arange(self.symbols)[:, None]
        ...         return Batch(tokens, (tokens + 1) % self.symbols, jnp.ones((self.symbols, 1)))
        ...
        ...     def batches(self, data, key, start, n):
        ...         return lambda i: data  # every step trains on all examples
        ...
        ...     def evaluation(self, data, key):
        ...         return Evaluation({"train": data}, {"successor": data.targets[:, 0]})
        >>> task = Successor()
        >>> evaluation = task.evaluation(task.data(seed=0), jax.random.key(0))
        >>> evaluation.ground_truth["successor"].tolist()
        [1, 2, 3, 4, 0]
        >>> sorted(task.labels(evaluation))
        ['answer', 'token_0']
    """

    per_seed: ClassVar[bool] = False
    """Whether seeds differ in their data. A task that has a setting for this overrides it with a
    property.
    """
    paper: ClassVar[str] = ""
    """Papers that studied the task, as ``arXiv 2301.05217``."""

    @classmethod
    def smallest(cls) -> "Task":
        """Smallest sensible setting, which trains in seconds.

        Tests run it, and ``--task.name`` on the command line starts from it.
        """
        return cls()

    @property
    @abstractmethod
    def inputs(self) -> Inputs:
        """Description of the inputs, from which a model is built."""

    @property
    @abstractmethod
    def read(self) -> tuple[int, ...]:
        """Positions at which answers are read."""

    @property
    def dim_names(self) -> Mapping[str, tuple[Any, ...]]:
        """Coordinates of the dims that this task has names for, such as the irreps of its group.

        Entries along all other dims are counted from 0.
        """
        return {}

    def size(self) -> TaskSize | None:
        """Size of the task's arrays, by arithmetic on the settings; None if it is not known.

        A run that the machine cannot hold is refused by it. It must be right within a factor of 2,
        and must not make anything that grows with the settings.
        """
        return None

    @abstractmethod
    def data(self, seed: int) -> PyTree:
        """Make the arrays that batches are drawn from.

        The compiled training program takes them as an argument, never as a constant.

        Args:
            seed: label of the run's seed. Data may depend on it only if ``per_seed`` is true.

        Returns:
            A pytree of arrays; ``()`` if every step draws fresh examples.
        """

    @abstractmethod
    def batches(self, data: PyTree, key: PRNGKey, start: Count, n: Count) -> Feed:
        """Make the batches of steps ``start`` to ``start + n - 1``.

        The batch of a step depends on (data, key, step) alone, however training is cut into chunks.

        Args:
            data: the result of ``data``, traced.
            key: key of the random stream "data", the same for all steps of a seed.
            start: first step, traced.
            n: number of steps, traced; at most ``LONGEST_CHUNK``.

        Returns:
            The function i -> batch of step ``start + i``.
        """

    @abstractmethod
    def evaluation(self, data: PyTree, key: PRNGKey) -> Evaluation:
        """Make the fixed evaluation batches and the ground truth, once per run and seed.

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure" of the seed.
        """

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels that probes are fitted on, by concept.

        Every task has ``answer``, the right class of each answer, and ``trained``, whether an
        example is in the split "train", if there are other splits. A task on tokens also has
        ``token_i``, the token at each position i that varies; if several positions are read,
        ``token``, the token at each of them. Subclasses override this method to say more.

        Args:
            evaluation: the result of ``evaluation``.

        Returns:
            Labels by concept, with rows in the order of ``evaluation.inputs``.
        """
        several = len(self.read) > 1
        answers = evaluation.targets if several else evaluation.targets[:, 0]
        by_concept = {"answer": labels(answers, self.inputs.classes)}
        if self.inputs.kind == "tokens":
            tokens = evaluation.inputs
            if several:
                by_concept["token"] = labels(tokens[:, list(self.read)], self.inputs.vocabulary)
            else:
                by_concept |= token_labels(tokens, self.inputs.alphabet)
        return {**by_concept, **trained_labels(evaluation)}


def trained_labels(evaluation: Evaluation) -> dict[str, Labels]:
    """Make the label ``trained``: 1 for examples of the split "train", 0 for all others.

    Returns:
        The label by its name; empty if "train" is the only split, or is none.
    """
    splits = sorted(evaluation.batches)
    if "train" not in splits or len(splits) == 1:
        return {}
    trained = [
        np.full(len(evaluation.batches[split].targets), split == "train") for split in splits
    ]
    return {"trained": labels(np.concatenate(trained), 2)}
