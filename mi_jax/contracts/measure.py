"""Measures: readings of one checkpoint, their context, and estimators with state."""

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
    """Other checkpoints of the same seed. A field is None if no measure at hand uses it.

    Attributes:
        initial: parameters at step 0.
        previous: parameters of the snapshot before.
        final: parameters at the end of training.
    """

    initial: Params | None = None
    previous: Params | None = None
    final: Params | None = None


class Shared:
    """Memory of values that several measures of one reading need, such as a forward pass.

    XLA does not find equal forward passes by itself inside a loop. The memory lives as long as one
    trace of the measuring program. Call ``once`` at the top of a measure, never inside a
    transformation (vmap, grad, scan) of the measure's own: a value traced there must not leave it.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[Any, ...], tuple[Params, Any]] = {}

    def once(self, key: tuple[Any, ...], params: Params, make: Callable[[], Any]) -> Any:
        """The value stored under a key for these parameters, made at the first call.

        Args:
            key: name of the value, with everything that it depends on beside the parameters.
            params: the parameters that the value is computed from, compared by identity.
            make: function that computes the value.
        """
        key = (id(params), *key)
        if key not in self._values:
            # The parameters are stored too: while they live, no other object takes their id.
            self._values[key] = (params, make())
        return self._values[key][1]


@accepts_old_names(concepts="ground_truth")
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """Everything beside the checkpoint that a measure may read.

    The context is an argument of the compiled measuring program, never a constant in it.

    Attributes:
        batches: evaluation batch of each split, see ``Evaluation``.
        ground_truth: exact facts by name, see ``Evaluation``.
        reference: initial, previous and final parameters of the same seed.
        prepared: results of ``Measure.prepare``, by name.
        model: the model; static.
        inputs: description of the task's inputs; static.
        read: positions at which answers are read; static.
        loss: the loss of the run; static.
        shared: memory of values that several measures need; None computes each value anew.
        labels: labels for probes, by concept.
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
"""Kinds of null that a measure's values are compared with: see ``Measure.null``."""


MeasureFunction = Callable[[Params, Context], Mapping[str, Array] | Array]
"""Function (params, context) that returns one array, or several by variable."""


Holders = Callable[[Literal["role", "ground truth"], str], str]
"""Function (kind, name) that says which models have a role, or which tasks a ground truth.

It returns the end of a sentence, or an empty string where nothing is known.
"""


@accepts_old_names(concepts="ground_truth", labels="coordinates")
@dataclass(frozen=True)
class Measure:
    """A reading of one checkpoint: a pure function, with the names of what it needs and returns.

    The measuring program maps the function over the snapshots and seeds of a run, and adds the dims
    (seed, step).

    Attributes:
        name: name of the variable in the dataset. A measure with options other than the published
            defaults carries them as a suffix.
        function: pure function (params, context) that returns an array, or arrays by variable.
        dims: trailing dims of the array, from ``basics.dims.DIMS``; for several variables, a
            mapping from each to its dims.
        roles: names of the model's roles that the measure needs, see ``Roles``.
        ground_truth: names of the task's exact facts that the measure needs.
        splits: names of the task's splits that the measure needs.
        uses: references that the measure reads. "final" makes it retrospective; with "initial" and
            "previous" it stays online.
        prepare: functions (reference, context) by name, each called once per seed, before the
            snapshots; the measure finds the result in ``context.prepared``.
        options: settings that the measure was made with, stored beside the result.
        coordinates: coordinate of each dim for which the program has none of its own (it has one
            for frequency, class and parameter), or a function (model, names of the task's labels)
            that returns the coordinate.
        null: null that the values are compared with. "untrained": untrained networks, each its own
            final model. "untrained_pair": an untrained network with another one as its final model,
            for readings that compare two checkpoints. "other_frequencies": the same checkpoint with
            as many other frequencies in the place of the key frequencies. "own_variable": another
            variable of the same measure.
        units: unit of the values; "loss" stands for the unit of the run's own loss.
        source: paper that defines the measure.

    Example:
        >>> import jax.numpy as jnp
        >>> def largest_weight() -> Measure:
        ...     def largest_weight(params, context):
        ...         return jnp.stack([jnp.abs(x).max() for x in jax.tree.leaves(params)]).max()
        ...
        ...     return Measure("largest_weight", largest_weight)
        >>> float(largest_weight().function({"W_E": jnp.array([[-3.0, 1.0]])}, None))
        3.0
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
        """Trailing dims of each variable."""
        return self.dims if isinstance(self.dims, Mapping) else {self.name: self.dims}

    @property
    def retrospective(self) -> bool:
        """Whether the measure reads the end of training, so that no forecast may use it."""
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
        """Say why the measure cannot be taken on a subject.

        Args:
            roles: the model's roles.
            ground_truth: names of the task's exact facts.
            references: references that are at hand: "initial", "previous", "final".
            splits: names of the task's splits; None skips their check.
            holders: function that says which models or tasks have a missing part.

        Returns:
            A predicate such as "needs the model's role 'heads'"; None if nothing is missing.
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
        if splits is not None:
            lacking += [f"the task's split '{name}'" for name in self.splits if name not in splits]
        lacking += [f"the {name} parameters" for name in sorted(self.uses - references)]
        return f"needs {', '.join(lacking)}" if lacking else None

    def read(self, params: Params, context: Context) -> dict[str, Array]:
        """Call the function and check what it returns.

        Args:
            params: parameters of the checkpoint.
            context: everything else that the function may read.

        Returns:
            The values by variable.

        Raises:
            MeasureError: if the variables or their dims are not those declared.
        """
        result = self.function(params, context)
        values = dict(result) if isinstance(result, Mapping) else {self.name: result}
        for name, dims in self.variables.items():
            if name not in values or values[name].ndim != len(dims):
                shape = values[name].shape if name in values else "nothing"
                raise MeasureError(
                    f"{self.name}: dims {dims} are declared for {name}, the function returned"
                    f" {shape}. Correct the measure's dims or its function."
                )
        extra = sorted(set(values) - set(self.variables))
        if extra:
            raise MeasureError(
                f"{self.name}: the function returned {extra}, which dims does not declare. Add"
                f" {'it' if len(extra) == 1 else 'them'} to the measure's dims."
            )
        return values


class Estimator(NamedTuple):
    """A computation with state, such as a sampler or a fit, as pure functions.

    Burn-in is a count in the state: nothing is accumulated before it ends. Traces are what
    ``lax.scan`` stacks of ``info``.

    Attributes:
        init: function (key, start) -> state.
        step: function (key, state, batch) -> (state, info).
        result: function state -> NamedTuple of results.
    """

    init: Callable[[PRNGKey, PyTree], PyTree]
    step: Callable[[PRNGKey, PyTree, PyTree], tuple[PyTree, PyTree]]
    result: Callable[[PyTree], NamedTuple]


class Subject(NamedTuple):
    """The subject of a reading: a model, with the task and the loss that it was trained with.

    Attributes:
        model: the model.
        task: the task.
        loss: the loss.
        holders: function that says which models or tasks have what this one lacks.
        precision: precision of the readings, which is that of the run.
    """

    model: Model
    task: Task
    loss: Loss
    holders: Holders = lambda kind, name: ""
    precision: Precision = "float32"


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
