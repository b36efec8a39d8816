"""Measures: readings of one checkpoint, and what they read it with; estimators."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Array, PyTree

from mi_jax.basics.dims import Params, PRNGKey
from mi_jax.basics.errors import MeasureError
from mi_jax.basics.fields import accepts_old_names
from mi_jax.basics.precision import Precision
from mi_jax.contracts.labels import Labels
from mi_jax.contracts.model import Model, Roles
from mi_jax.contracts.task import Batch, Inputs, Task
from mi_jax.contracts.training import Loss


class Reference(NamedTuple):
    """Other checkpoints of the same seed that a measure may look at. None where the measures at
    hand use none.
    """

    initial: Params | None = None
    previous: Params | None = None
    final: Params | None = None


class Shared:
    """What the measures of one reading have computed in common: a memory that lives as long as one
    trace of the program.

    XLA doesn't find equal forward passes by itself inside a loop. Values are kept with the
    parameters they are of. Whatever fills it is called at the top of a measure, not inside a
    transformation of the measure's own.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], tuple[Params, Any]] = {}

    def once(self, key: tuple[Any, ...], params: Params, make: Callable[[], Any]) -> Any:
        """The value under a key for these very parameters; made where there is none yet."""
        key = (id(params), *key)
        if key not in self._held:
            self._held[key] = (params, make())
        return self._held[key][1]


@accepts_old_names(concepts="ground_truth")
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a measure reads a checkpoint with: an argument of the compiled program, never a constant
    in it.

    Attributes:
        batches, ground_truth: the task's fixed evaluation (see Evaluation).
        reference: initial, previous and final parameters of the same seed.
        prepared: what measures froze before the pass, by name.
        model, inputs, read, loss: the static parts.
        shared: what measures compute in common in this reading; None computes everything anew.
        labels: the task's labels for probes.
    """

    batches: Mapping[str, Batch]
    ground_truth: Mapping[str, Any]
    reference: Reference
    prepared: Mapping[str, Any]
    model: Model = field(metadata={"static": True})
    inputs: Inputs = field(metadata={"static": True})
    read: tuple[int, ...] = field(metadata={"static": True})
    loss: Loss = field(metadata={"static": True})
    shared: Shared | None = field(default=None, metadata={"static": True})
    labels: Mapping[str, Labels] = field(default_factory=dict)


Null = Literal["untrained", "untrained_pair", "other_frequencies", "own_variable"]


MeasureFunction = Callable[[Params, Context], Mapping[str, Array] | Array]


Holders = Callable[[Literal["role", "ground truth"], str], str]
"""A half sentence on which models (tasks) have a role (a concept); empty where nothing is known."""


@accepts_old_names(concepts="ground_truth", labels="coordinates")
@dataclass(frozen=True)
class Measure:
    """A reading of one checkpoint.

    Attributes:
        name: the variable of the dataset; with options other than the published default it carries
            them as a suffix.
        function: ``(params, context) -> array`` (or ``{variable: array}`` for several at once),
            pure.
        dims: the array's trailing dims, or a mapping of them by variable; the runner adds (seed,
            step).
        roles: the model's roles that it needs.
        ground_truth: the task's exact facts that it needs.
        splits: the task's splits that it needs.
        uses: which references it looks at; "final" makes it retrospective, "initial" and "previous"
            keep it online.
        prepare: by name, ``(reference, context) -> pytree`` made once a seed before the pass, found
            in ``context.prepared``.
        options: the settings it was made with, stored beside the result.
        coordinates: by dim, the coordinate of its places, where it isn't the runner's own (frequency,
            class, parameter); or a function that gives it, of the model and the names of the task's
            labels.
        null: what its values are compared with. "untrained": untrained networks, each its own
            final model. "untrained_pair": an untrained network with another one as its final
            model, for readings that compare two checkpoints. "other_frequencies": the same
            checkpoint with as many other frequencies in the place of the key ones.
            "own_variable": another variable of the measure.
        units: of the values; "loss" stands for those of the run's own loss. source: the paper that
            defines it.
    """

    name: str
    function: MeasureFunction
    dims: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    roles: tuple[str, ...] = ()
    ground_truth: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    prepare: Mapping[str, Callable[[Reference, Context], PyTree]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    coordinates: Mapping[
        str, tuple[Any, ...] | Callable[[Model, Sequence[str]], tuple[Any, ...]]
    ] = field(default_factory=dict)
    null: Null = "untrained"
    units: str = ""
    source: str = ""

    @property
    def variables(self) -> Mapping[str, tuple[str, ...]]:
        """Trailing dims by variable."""
        return self.dims if isinstance(self.dims, Mapping) else {self.name: self.dims}

    @property
    def retrospective(self) -> bool:
        """Whether it knows the end of training, so that no forecast may use it."""
        return "final" in self.uses

    def missing(
        self,
        roles: Roles,
        ground_truth: frozenset[str],
        references: frozenset[str],
        *,
        splits: frozenset[str] | None = None,
        holders: Holders = lambda kind, name: "",
    ) -> str | None:
        """Why this measure can't be taken here, or None.

        Args:
            splits: the task's; None where they aren't looked at.
            holders: says which models or tasks have what is missing.
        """
        lacking = [
            f"the model's role '{role}'{holders('role', role)}"
            for role in self.roles
            if not getattr(roles, role)
        ]
        lacking += [
            f"the task's ground truth '{name}'{holders('ground truth', name)}"
            for name in self.ground_truth
            if name not in ground_truth
        ]
        lacking += [
            f"the task's split '{name}'"
            for name in self.splits
            if splits is not None and name not in splits
        ]
        lacking += [f"the {name} parameters" for name in sorted(self.uses - references)]
        return f"needs {', '.join(lacking)}" if lacking else None

    def read(self, params: Params, context: Context) -> dict[str, Array]:
        """The values by variable. Raises MeasureError where the function returns other ones than
        declared.
        """
        values = self.function(params, context)
        values = dict(values) if isinstance(values, Mapping) else {self.name: values}
        for name, dims in self.variables.items():
            if name not in values or values[name].ndim != len(dims):
                shape = values[name].shape if name in values else "nothing"
                raise MeasureError(
                    f"{self.name}: dims {dims} are declared for {name}, the function returned"
                    f" {shape}"
                )
        extra = sorted(set(values) - set(self.variables))
        if extra:
            raise MeasureError(
                f"{self.name}: the function returned {extra}, which aren't declared in dims"
            )
        return values


class Estimator(NamedTuple):
    """A computation with state (a sampler, a fit) as pure functions.

    ``init(key, start) -> state``; ``step(key, state, batch) -> (state, info)``; ``result(state) ->
    NamedTuple``. Burn-in is a count in the state, and nothing is accumulated before it; traces are
    what ``lax.scan`` stacks of ``info``.
    """

    init: Callable[[PRNGKey, PyTree], PyTree]
    step: Callable[[PRNGKey, PyTree, PyTree], tuple[PyTree, PyTree]]
    result: Callable[[PyTree], NamedTuple]


class Subject(NamedTuple):
    """What is read: the model, and the task and loss it was trained with."""

    model: Model
    task: Task
    loss: Loss
    holders: Holders = lambda kind, name: ""
    """What to say of the models and tasks that have what this one lacks."""
    precision: Precision = "float32"
    """What it is read in: that of the run."""


LONGEST_OPTION = 40
"""Characters of an option's text above which a measure's name carries a hash of it instead."""


def option_suffix(
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    bare: Collection[str] = (),
    formats: Mapping[str, str] | None = None,
) -> str:
    """Suffix of a measure's name: the options that differ from the published defaults.

    Each such option adds ``_name_value``, or ``_value`` if its name is in ``bare``. The items of a
    list or tuple are joined by "+". A text of more than ``LONGEST_OPTION`` characters is replaced
    by the first 8 hexadecimal digits of its SHA-256.

    Args:
        options: value of each option, in the order of the suffix.
        defaults: default of each option; other names are ignored.
        bare: options whose value stands in the suffix without their name.
        formats: format specification by option, such as ``{"ridge": "g"}``; ``str`` by default.

    Returns:
        The suffix, with a leading underscore; empty if every option has its default.

    Example:
        >>> defaults = {"split": None, "ridge": 0.001}
        >>> option_suffix({"split": "train", "ridge": 0.1}, defaults, bare=("split",))
        '_train_ridge_0.1'
        >>> option_suffix(defaults, defaults)
        ''
    """
    parts: list[str] = []
    for name, value in options.items():
        items = tuple(value) if isinstance(value, (list, tuple)) else None
        if (value if items is None else items) == defaults[name]:
            continue
        if items is None:
            text = format(value, (formats or {}).get(name, ""))
        else:
            text = "+".join(str(item) for item in items)
        if len(text) > LONGEST_OPTION:
            text = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts.append(text if name in bare else f"{name}_{text}")
    return "".join(f"_{part}" for part in parts)
