"""Your own data: examples, answers and splits read from one npz file."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from mi_jax.basics.dims import Count, PRNGKey
from mi_jax.basics.errors import ConfigError
from mi_jax.basics.files import UNREADABLE, read_npz
from mi_jax.contracts import Batch, Evaluation, Feed, Inputs, Labels, Task, TaskSize, labels
from mi_jax.tasks.sampling import finite_feed, orders_bytes

_EXAMPLE = Path(__file__).with_name("example.npz")
_SPLITS = ("test", "train")
"""In the sorted order of their names, in which an evaluation lists its examples."""
_NEEDED = ("inputs", "targets", *_SPLITS)
_FACT = "truth_"
_MOST_CLASSES = 256
"""Number of classes up to which a whole-numbered fact about every example is a label of probes."""
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class FromArrays(Task):
    """Examples that you made yourself, from one npz file.

    The file holds these arrays (n examples; nothing is unpickled):

    - ``inputs``: whole numbers from 0, tokens [example position]; or floats [example feature], or
      [example position feature].
    - ``targets``: whole numbers from 0, the right class of each example, [example] or [example k]
      for k positions where answers are read.
    - ``train``, ``test``: whole numbers, which examples (rows of the file) each split holds, in the
      order in which they are trained on. No example may be in both or twice; an example may be in
      neither.
    - ``weights``: optional floats of at least 0, the weight of each answer in the loss, shaped as
      ``targets``; 1 by default.
    - ``truth_NAME``: optional numbers, exact facts by name, for measures and probes. A fact with a
      row per example is sorted with the examples. ``truth_table`` holds numbers of examples, which
      become the places of these examples.

    The SHA-256 of the file belongs to the experiment: a run is not resumed, forked or measured with
    other bytes. Where the file lies does not: an experiment with a moved file is the same.

    Splits:
        test: the examples ``test``.
        train: the examples ``train``.

    Ground truth:
        the facts ``truth_NAME`` under NAME [example ...], rows in sorted order of the splits.

    Labels for probes: ``answer``, ``trained``, ``token_i`` as every task; and each whole-numbered
    fact with a row per example, if it has classes from 0 to at most 255.

    Attributes:
        file: the npz. Empty for a small example that comes with this package, addition mod 7.
        batch_size: examples per step; None for all of them in every step.
        classes: number of classes; None for the largest target and 1.
        vocabulary: number of token ids; None for the largest token and 1. 0 for floats.
        read_at: positions where answers are read, as many as ``targets`` has columns. None for the
            last position where there is one column, and for all where there are as many columns as
            positions.
        causal: whether an answer also stands in the input, after the position where it is read, as
            when the next token is predicted. The model must then look only backwards.
        sha256: SHA-256 of the file, in hexadecimal digits. Leave it empty: it is filled in.

    Raises:
        ConfigError: if there is no such file, or it does not hold what is described above.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "successors.npz"
        >>> tokens = np.arange(10)
        >>> np.savez(file, inputs=tokens[:, None], targets=(tokens + 1) % 10,
        ...          train=tokens[:6], test=tokens[6:], truth_parity=tokens % 2)
        >>> task = FromArrays(str(file))
        >>> task.inputs.classes, task.data(0).targets[:, 0].tolist()
        (10, [1, 2, 3, 4, 5, 6])
    """

    file: str = ""
    batch_size: int | None = None
    classes: int | None = None
    vocabulary: int | None = None
    read_at: tuple[int, ...] | None = None
    causal: bool = False
    sha256: str = ""

    paper: ClassVar[str] = "your own data"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("classes", 1), ("vocabulary", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise ConfigError(
                    f"{name}={value}: must be a whole number of at least {least}, or None."
                )
        if self.file and not self.sha256:
            # A run may be opened from another folder than it was trained in.
            object.__setattr__(self, "file", str(Path(self.file).expanduser().resolve()))
            object.__setattr__(self, "sha256", _sha256(Path(self.file)))
            self._arrays  # noqa: B018  what the file lacks is said here, before anything is made

    @property
    def _arrays(self) -> "_Arrays":
        """The checked arrays of the file.

        Raises:
            ConfigError: if the file is missing, has other bytes, or does not fit the settings.
        """
        path = Path(self.file) if self.file else _EXAMPLE
        arrays = _read(path, _sha256(path))
        if self.sha256 and arrays.sha256 != self.sha256:
            raise ConfigError(
                f"The data set {path} has other bytes than this experiment was made with: its"
                f" SHA-256 is {arrays.sha256[:12]}..., recorded is {self.sha256[:12]}... . Put the"
                " recorded file back. For a new experiment on the new bytes, make FromArrays of the"
                " file anew, without sha256."
            )
        _check_fits(arrays, self)
        return arrays

    @property
    def inputs(self) -> Inputs:
        """Description of the inputs, from the whole file and the settings."""
        x = self._arrays.inputs
        targets = self._arrays.targets
        classes = self.classes or int(targets.max()) + 1
        if np.issubdtype(x.dtype, np.floating):
            _, positions, features = x.shape
            return Inputs(
                "floats", 0, positions, classes, (), features=features, causal=self.causal
            )
        low, high = x.min(axis=0), x.max(axis=0)
        alphabet = tuple((int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        # Ids of content begin at 0 at every position where they vary.
        alphabet = tuple((0 if end - first > 1 else first, end) for first, end in alphabet)
        vocabulary = self.vocabulary or int(high.max()) + 1
        return Inputs("tokens", vocabulary, x.shape[1], classes, alphabet, causal=self.causal)

    @property
    def read(self) -> tuple[int, ...]:
        """Positions at which answers are read: see ``read_at``."""
        if self.read_at is not None:
            return self.read_at
        positions, columns = self._arrays.inputs.shape[1], self._arrays.targets.shape[1]
        return (positions - 1,) if columns == 1 else tuple(range(positions))

    def size(self) -> TaskSize:
        """Size of the splits and the facts, as the file holds them."""
        arrays = self._arrays
        each = sum(x.nbytes for x in (arrays.inputs, arrays.targets, arrays.weights))
        each //= len(arrays.inputs)
        trained, tested = len(arrays.train), len(arrays.test)
        facts = sum(fact.nbytes for fact in arrays.facts.values())
        return TaskSize(
            batch=self.batch_size or trained,
            examples=trained + tested,
            data=trained * each,
            evaluation=(trained + tested) * each + facts,
            drawing=orders_bytes(trained, self.batch_size),
        )

    def data(self, seed: int) -> Batch:
        """The trained examples, in the order of ``train``; the same for every seed."""
        return self._batch("train")

    def batches(self, data: Batch, key: PRNGKey, start: Count, n: Count) -> Feed:
        """Feed all trained examples in every step, or minibatches of ``batch_size``.

        Args:
            data: the result of ``data``.
            key: key of the random stream "data".
            start: first step, traced.
            n: number of steps, traced; at most ``LONGEST_CHUNK``.
        """
        return finite_feed(data, self.batch_size, key, start, n)

    def evaluation(self, data: Batch, key: PRNGKey) -> Evaluation:
        """Make the splits "train" and "test", and the facts of the file.

        Args:
            data: the result of ``data``.
            key: key of the random stream "measure".
        """
        batches = {"train": data, "test": self._batch("test")}
        return Evaluation(batches, self._facts())

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """Make the labels of every task, and those of whole-numbered facts about every example."""
        rows = len(evaluation.targets)
        facts = {
            name: labels(fact, int(fact.max()) + 1)
            for name, fact in evaluation.ground_truth.items()
            if fact.shape == (rows,) and fact.dtype.kind in "iub"
            if fact.min() >= 0 and fact.max() < _MOST_CLASSES
        }
        return {**facts, **super().labels(evaluation)}

    def _batch(self, split: str) -> Batch:
        """The examples of a split, in its order."""
        arrays = self._arrays
        rows = getattr(arrays, split)
        return Batch(
            jnp.asarray(arrays.inputs[rows]),
            jnp.asarray(arrays.targets[rows]),
            jnp.asarray(arrays.weights[rows]),
        )

    def _facts(self) -> dict[str, np.ndarray]:
        """The facts by name; rows of examples in sorted order of the splits."""
        arrays = self._arrays
        order = np.concatenate([getattr(arrays, split) for split in _SPLITS])
        facts = {
            name: fact[order] if fact.shape[:1] == (len(arrays.inputs),) else fact
            for name, fact in arrays.facts.items()
        }
        if "table" in facts:
            places = np.full(len(arrays.inputs), -1, np.int32)
            places[order] = np.arange(len(order))
            facts["table"] = places[arrays.facts["table"]]
        return facts


class _Arrays(NamedTuple):
    """Contents of a file, checked by themselves.

    Attributes:
        sha256: SHA-256 of the file.
        inputs: int32 tokens [example position] or float32 [example position feature].
        targets: int32 classes, [example k].
        weights: float32 weights, [example k].
        train: rows of the trained examples.
        test: rows of the others that are measured.
        facts: facts by name, without the prefix.
    """

    sha256: str
    inputs: Shaped[np.ndarray, "example position *feature"]
    targets: Int[np.ndarray, "example k"]
    weights: Float[np.ndarray, "example k"]
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    facts: Mapping[str, np.ndarray]


def _sha256(path: Path) -> str:
    """SHA-256 of a file that is read once as long as it does not change on disk.

    Raises:
        ConfigError: if there is no such file.
    """
    try:
        status = os.stat(path)
        return _hashed(path, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as error:
        raise ConfigError(
            f"The data set {path} cannot be read: {error.strerror or error}. Put it there, or give"
            " the path of an npz."
        ) from None


@lru_cache(maxsize=16)
def _hashed(path: Path, *_: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _read(path: Path, sha256: str) -> _Arrays:
    """Read a file and check what it holds, apart from any settings."""
    try:
        stored = read_npz(path)
    except UNREADABLE as error:
        raise ConfigError(
            f"The data set {path} is no npz of plain arrays: {error}. Write it with numpy.savez;"
            " arrays of Python objects are not read."
        ) from None
    missing = [name for name in _NEEDED if name not in stored]
    unknown = [name for name in stored if not _is_known(name)]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"also holds {', '.join(unknown)}"
        raise ConfigError(
            f"The data set {path} {what}. It has {', '.join(sorted(stored))}. A data set needs"
            f" {', '.join(_NEEDED)}, and may have weights and {_FACT}NAME."
        )
    check = _Checks(path)
    inputs = check.inputs(stored["inputs"])
    n = len(inputs)
    targets = check.columns("targets", stored["targets"], n)
    check.whole("targets", targets)
    weights = np.ones(targets.shape, np.float32)
    if "weights" in stored:
        weights = check.columns("weights", stored["weights"], n)
        check.weights(weights, targets.shape)
    splits = {name: check.rows(name, stored[name], n) for name in _SPLITS}
    both = np.intersect1d(splits["train"], splits["test"])
    if len(both):
        check.refuse(
            f"has {len(both)} examples in both train and test, such as example {both[0]}",
            "Leave each in one of them",
        )
    if not weights[splits["train"]].sum() > 0:
        check.refuse("has no trained answer of a weight above 0", "Give one a weight")
    facts = {
        name.removeprefix(_FACT): check.fact(name, fact, n, splits)
        for name, fact in stored.items()
        if name.startswith(_FACT)
    }
    return _Arrays(
        sha256,
        inputs,
        targets.astype(np.int32),
        weights.astype(np.float32),
        splits["train"],
        splits["test"],
        facts,
    )


def _is_known(name: str) -> bool:
    fact = name.removeprefix(_FACT)
    return name in (*_NEEDED, "weights") or (name.startswith(_FACT) and fact.isidentifier())


class _Checks(NamedTuple):
    """Checks of the arrays of one file; each raises ConfigError with a sentence of its own."""

    path: Path

    def refuse(self, what: str, to_do: str) -> Any:
        raise ConfigError(f"The data set {self.path} {what}. {to_do}.")

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """Tokens as int32 [example position], floats as float32 [example position feature]."""
        if x.size == 0:
            self.refuse(f"has inputs of the shape {x.shape}", "Give at least one example")
        if np.issubdtype(x.dtype, np.floating):
            if x.ndim not in (2, 3):
                self.refuse(
                    f"has floats as inputs of the shape {x.shape}",
                    "Floats are [example feature] or [example position feature]",
                )
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)
            wrong = np.argwhere(~np.isfinite(x))
            if len(wrong):
                self.refuse(
                    f"has {len(wrong)} inputs that are NaN, infinite or too large for float32, the"
                    f" first in example {wrong[0][0]}",
                    "Leave these examples out, or mend them",
                )
            return x[:, None, :] if x.ndim == 2 else x
        if x.dtype.kind not in "iu" or x.ndim != 2:
            self.refuse(
                f"has inputs of the type {x.dtype} and the shape {x.shape}",
                "Tokens are whole numbers [example position], other inputs floats",
            )
        self.whole("inputs", x)
        return x.astype(np.int32)

    def columns(self, name: str, x: np.ndarray, n: int) -> np.ndarray:
        """An array [example] or [example k] as [example k]."""
        if x.ndim not in (1, 2) or x.size == 0 or len(x) != n:
            self.refuse(
                f"has {name} of the shape {x.shape} for {n} examples",
                f"{name} are [example] or [example k]",
            )
        return x.reshape(n, -1)

    def whole(self, name: str, x: np.ndarray) -> None:
        """Refuse what are no whole numbers from 0 that fit int32."""
        if x.dtype.kind not in "iu":
            self.refuse(f"has {name} of the type {x.dtype}", "They must be whole numbers")
        wrong = np.argwhere((x < 0) | (x > _LARGEST))
        if len(wrong):
            row = tuple(int(i) for i in wrong[0])
            self.refuse(
                f"has {name} out of range: {x[row]} in example {row[0]}",
                f"They must lie between 0 and {_LARGEST:,}",
            )

    def weights(self, x: np.ndarray, shape: tuple[int, ...]) -> None:
        """Refuse weights that are negative, not finite or no floats, or fit no target."""
        if x.shape != shape or x.dtype.kind not in "fiu":
            self.refuse(
                f"has weights of the type {x.dtype} and the shape {x.shape} for targets of the"
                f" shape {shape}",
                "Give one number for each target",
            )
        wrong = np.argwhere(~(np.isfinite(x.astype(np.float32)) & (x >= 0)))
        if len(wrong):
            self.refuse(
                f"has the weight {x[tuple(wrong[0])]} in example {wrong[0][0]}",
                "Weights must be finite and at least 0",
            )

    def rows(self, name: str, x: np.ndarray, n: int) -> np.ndarray:
        """The examples of a split, as int64."""
        if x.dtype.kind not in "iu" or x.ndim != 1 or not len(x):
            self.refuse(
                f"has {name} of the type {x.dtype} and the shape {x.shape}",
                f"{name} lists the examples of the split, at least one, as whole numbers",
            )
        wrong = x[(x < 0) | (x >= n)]
        if len(wrong):
            self.refuse(
                f"lists the example {wrong[0]} in {name}, and there are {n} examples",
                f"Number them from 0 to {n - 1}",
            )
        values, counts = np.unique(x, return_counts=True)
        if (counts > 1).any():
            self.refuse(
                f"lists the example {values[counts > 1][0]} twice in {name}", "List it once"
            )
        return x.astype(np.int64)

    def fact(
        self, name: str, x: np.ndarray, n: int, splits: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """A fact, in the types that measures take; a table's entries must be split examples."""
        if x.dtype.kind not in "iubf":
            self.refuse(f"has {name} of the type {x.dtype}", "Facts are numbers or booleans")
        if x.dtype.kind == "f":
            return x.astype(np.float32)
        if x.dtype.kind == "b":
            return x
        if x.size and not (x.min() >= -_LARGEST and x.max() <= _LARGEST):
            self.refuse(f"has numbers in {name} that do not fit int32", "Store them as floats")
        if name == f"{_FACT}table" and not np.isin(x, np.concatenate([*splits.values()])).all():
            self.refuse(
                f"has examples in {name} that are in neither split",
                "Its entries are numbers of examples in train or test",
            )
        return x.astype(np.int32)


def _check_fits(arrays: _Arrays, task: FromArrays) -> None:
    """Refuse settings that the arrays of a file do not fit."""
    check, name = _Checks(Path(task.file) if task.file else _EXAMPLE), "targets"
    largest = int(arrays.targets.max())
    if task.classes is not None and largest >= task.classes:
        row = int(np.argwhere(arrays.targets >= task.classes)[0][0])
        check.refuse(
            f"has {name} out of range: {largest} with classes={task.classes}, first in example"
            f" {row}",
            f"Targets must lie between 0 and {task.classes - 1}",
        )
    tokens = not np.issubdtype(arrays.inputs.dtype, np.floating)
    if tokens and task.vocabulary is not None and arrays.inputs.max() >= task.vocabulary:
        check.refuse(
            f"has the token {arrays.inputs.max()} with vocabulary={task.vocabulary}",
            f"Tokens must lie between 0 and {task.vocabulary - 1}",
        )
    positions, columns = arrays.inputs.shape[1], arrays.targets.shape[1]
    read = task.read_at
    if read is None:
        if columns not in (1, positions):
            check.refuse(
                f"has {columns} targets per example and {positions} positions",
                "Say with read_at=(...) at which positions they are read",
            )
    elif len(read) != columns or list(read) != sorted(set(read) & set(range(positions))):
        check.refuse(
            f"has {columns} targets per example and {positions} positions, and read_at is {read}",
            "Give as many positions as there are targets, in ascending order from 0",
        )
    if task.batch_size is not None and task.batch_size > len(arrays.train):
        check.refuse(
            f"has {len(arrays.train)} trained examples, fewer than batch_size={task.batch_size}",
            "Take a smaller batch, or None for all of them",
        )
