"""What a task, a model, a loss, an optimizer, a measure, an intervention and an estimator are to one another.

The folders know each other through these types alone. Configuration is a frozen dataclass (hashable, stored in the run by its
registry name); behaviour is pure functions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree, Shaped

from mi_jax.arrays import Count, Params, PRNGKey
from mi_jax.concepts import Labels, labels, token_labels
from mi_jax.errors import MeasureError, nearest, require
from mi_jax.fields import Numbers


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
        causal: whether answers stand in the input after the position they are read at, so that a model may only look back.
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
    """Examples with their answers. ``position`` runs over the positions that are read, a task's ``read``."""

    inputs: Shaped[Array | np.ndarray, "batch ..."]
    targets: Int[Array | np.ndarray, "batch position"]
    weights: Float[Array | np.ndarray, "batch position"]
    """0 where no loss is read."""
    info: Mapping[str, Array] = {}


Feed = Callable[[Count], Batch]
"""i -> the batch of step start + i."""


class Evaluation(NamedTuple):
    """The fixed examples that a run is read on, and what is known to be true of them."""

    batches: Mapping[str, Batch]
    """By split; together they hold each example once."""
    concepts: Mapping[str, Num[Array | np.ndarray, "..."]]
    """Exact facts by name; a task's docstring defines each. What has a row for each example holds those of the splits one after
    the other, in sorted order of their names."""

    @property
    def inputs(self) -> Shaped[np.ndarray, "example ..."]:
        """The inputs of all examples, those of the splits one after the other, in sorted order of their names."""
        return np.concatenate([np.asarray(self.batches[split].inputs) for split in sorted(self.batches)])

    @property
    def targets(self) -> Int[np.ndarray, "example position"]:
        """The answers of all examples, in the same order."""
        return np.concatenate([np.asarray(self.batches[split].targets) for split in sorted(self.batches)])


@dataclass(frozen=True)
class Task(ABC):
    """Data, and what is known to be true of it. Frozen and hashable: the fields are the settings."""

    per_seed: ClassVar[bool] = False
    """Whether the data differ by seed. A task for which this is a setting answers with a property."""
    paper: ClassVar[str] = ""
    """Where the task was studied, as ``arXiv 2301.05217``."""

    @classmethod
    def smallest(cls) -> "Task":
        """The smallest sensible setting, which trains in seconds: what tests run and ``--task.name`` starts from."""
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
        """By dim, the names of what this task has along it (its group's irreps); places are counted where it says nothing."""
        return {}

    @abstractmethod
    def data(self, seed: int) -> PyTree:
        """The arrays that batches are made of: an argument of the compiled program. The same for all seeds, unless per_seed."""

    @abstractmethod
    def batches(self, data: PyTree, key: PRNGKey, start: Count, n: Count) -> Feed:
        """The batches of steps start to start + n - 1: a pure function of (data, key, step), however the steps are cut."""

    @abstractmethod
    def evaluation(self, data: PyTree, key: PRNGKey) -> Evaluation:
        """Fixed evaluation batches by split, and concepts. Built once a run and seed."""

    def labels(self, evaluation: Evaluation) -> Mapping[str, Labels]:
        """What is known of each example as a class, for probes: by concept, in the order of ``evaluation.inputs``.

        Unless a task says more: ``answer``, the right class; ``trained``, whether the example is of the split "train", where
        there are others; and the tokens that vary, ``token_i`` at position i, or where several positions are read ``token``, the
        one that stands there.
        """
        tokens = evaluation.inputs if self.inputs.kind == "tokens" else None
        if len(self.read) == 1:
            found = {"answer": labels(evaluation.targets[:, 0], self.inputs.classes)}
            found |= {} if tokens is None else token_labels(tokens, self.inputs.alphabet)
        else:
            found = {"answer": labels(evaluation.targets, self.inputs.classes)}
            found |= {} if tokens is None else {"token": labels(tokens[:, list(self.read)], self.inputs.vocabulary)}
        return {**found, **trained_labels(evaluation)}


def trained_labels(evaluation: Evaluation) -> dict[str, Labels]:
    """``trained``: 1 for examples of the split "train"; nothing where that is no split, or the only one."""
    splits = sorted(evaluation.batches)
    if "train" not in splits or len(splits) == 1:
        return {}
    kinds = [np.full(len(evaluation.batches[split].targets), split == "train") for split in splits]
    return {"trained": labels(np.concatenate(kinds), 2)}


class Site(NamedTuple):
    """A place in a model's forward pass that a tap may listen to or replace."""

    name: str
    equation: str
    dims: tuple[str, ...]
    kind: Literal["activation", "product"] = "activation"
    """A product's tap gets (x, W) and returns the product, without the bias."""
    optional: bool = False
    """Computed only when it is listened to."""


class Heads(NamedTuple):
    """The matrices of all attention heads, row vectors first: a query is x W_Q, a head adds pattern (x W_V) W_O."""

    W_Q: Float[Array | np.ndarray, "layer head d d_head"]
    W_K: Float[Array | np.ndarray, "layer head d d_head"]
    W_V: Float[Array | np.ndarray, "layer head d d_head"]
    W_O: Float[Array | np.ndarray, "layer head d_head d"]


@dataclass(frozen=True)
class Roles:
    """Which arrays and sites of a model play the field's parts. None or empty: the model has no such part."""

    embedding: tuple[Callable[[Params], Float[Array | np.ndarray, "token d"]], ...] = ()
    """One function of the parameters a token table, the task's tokens only."""
    output_map: Callable[[Params], Float[Array | np.ndarray, "neuron class"]] | None = None
    """The linear map from the last neurons to the task's classes, W_L = W_out W_U; one column where one output tells two."""
    neurons: str | None = None
    """The site of the neurons that output_map reads."""
    neuron_inputs: tuple[Callable[[Params], Float[Array | np.ndarray, "token neuron"]], ...] = ()
    """What each token adds to each neuron before its activation, where that is a table of the weights alone."""
    input_map: Callable[[Params], Float[Array | np.ndarray, "feature neuron"]] | None = None
    """What a unit of each feature of float inputs adds to each neuron before its activation, where the weights alone say that."""
    embedded: str | None = None
    """The site [batch position d] of the embedded tokens, before positions are added."""
    unembedding: Callable[[Params], Float[Array | np.ndarray, "d class"]] | None = None
    """The linear map from the residual stream to the task's classes; a norm before it is left out."""
    heads: Callable[[Params], Heads] | None = None
    """The matrices of the attention heads."""
    attention: tuple[str, ...] = ()
    """The sites of the attention scores, by layer."""
    patterns: tuple[str, ...] = ()
    """The sites of the attention patterns, by layer."""
    neurons_added: tuple[str, Callable[[Params, Float[Array, "*b d"]], Float[Array, "*b class"]]] | None = None
    """A site after the neurons, and the map of (params, what it holds) that gives A W_L of them: fewer products than A W_L."""
    linear_readout: bool = False
    """Whether the outputs are output_map of the neurons plus what doesn't depend on them (there is no norm in between)."""
    writers: tuple[str, ...] = ()
    """Sites that add to the residual stream, in order: its sum, but for attention's output biases."""
    readers: tuple[str, ...] = ()
    """Sites that read the residual stream, in order."""

    @property
    def heads_in_two_layers(self) -> bool:
        """Whether one head can read what another has written."""
        return self.heads is not None and len(self.attention) > 1


Tap = Callable[..., Any]
Taps = Mapping[str, Tap]


PLAIN = "plain"
"""The name of the simplest way of computing a model."""


@dataclass(frozen=True, eq=False)
class Model:
    """A built model: pure functions of a plain nested dict of arrays. Compared by identity.

    Attributes:
        init: key -> params.
        apply: ``apply(params, inputs, *, taps=None, positions=None) -> outputs [batch position class]``; with ``positions``
            only those are computed in the last layer and returned.
        roles: the parts that measures ask for.
        sites: every name that ``taps`` knows.
        routes: ways of computing ``apply``, by name, equal but for rounding; ``apply`` takes the cheapest. Empty where there is
            one way only.
        cheapest: (inputs, shape of a batch, positions) -> the name of that way.
    """

    init: Callable[[PRNGKey], Params]
    apply: Callable[..., Float[Array, "batch position class"]]
    roles: Roles = Roles()
    sites: tuple[Site, ...] = ()
    routes: Mapping[str, Callable[..., Float[Array, "batch position class"]]] = field(default_factory=dict)
    cheapest: Callable[[Inputs, tuple[int, ...], tuple[int, ...] | None], str] = lambda inputs, shape, positions: PLAIN

    def along(self, route: str) -> Callable[..., Float[Array, "batch position class"]]:
        """``apply`` by the named way. Raises ConfigError for one that this model doesn't have."""
        known = self.routes or {PLAIN: self.apply}
        require(route in known, f"this model has no route '{route}'; {nearest(route, known)}")
        return known[route]


@dataclass(frozen=True)
class Architecture(ABC):
    """The settings of a model; ``build`` makes the model for a task's inputs."""

    @abstractmethod
    def build(self, inputs: Inputs) -> Model:
        """The model for these inputs. Raises ConfigError where they don't fit."""


@dataclass(frozen=True)
class Loss(ABC):
    """A loss by position: the mean over weights is what is trained."""

    units: ClassVar[str] = ""
    """What its values are in, for readings and figures."""

    @abstractmethod
    def __call__(
        self, outputs: Float[Array, "batch position class"], targets: Int[Array | np.ndarray, "batch position"]
    ) -> Float[Array, "batch position"]:
        """The loss of every answer that is read."""


def mean_loss(each: Float[Array, "batch position"], weights: Float[Array | np.ndarray, "batch position"]) -> Float[Array, ""]:
    """The weighted mean of a loss by position: sum(weights * loss) / sum(weights). What has no weight may be NaN."""
    return (jnp.where(weights == 0, 0.0, each) * weights).sum() / weights.sum()


@runtime_checkable
class GradientTransformation(Protocol):
    """optax's pair of functions, named here so that reading needs no optax."""

    @property
    def init(self) -> Callable[..., Any]:
        """params -> optimizer state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """(gradients, state, params) -> (updates, state)."""
        ...


@dataclass(frozen=True)
class Optimizer(ABC):
    """The settings of an optimizer. ``numbers`` holds its sweepable fields, traced."""

    @abstractmethod
    def transform(self, numbers: Numbers, step: Count) -> GradientTransformation:
        """The update rule of step ``step``, built inside the traced function: its state's structure depends on no number."""


class Reference(NamedTuple):
    """Other checkpoints of the same seed that a measure may look at. None where the measures at hand use none."""

    initial: Params | None = None
    previous: Params | None = None
    final: Params | None = None


class Shared:
    """What the measures of one reading have computed in common: a memory that lives as long as one trace of the program.

    XLA doesn't find equal forward passes by itself inside a loop. Values are kept with the parameters they are of. Whatever fills
    it is called at the top of a measure, not inside a transformation of the measure's own.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], tuple[Params, Any]] = {}

    def once(self, key: tuple[Any, ...], params: Params, make: Callable[[], Any]) -> Any:
        """The value under a key for these very parameters; made where there is none yet."""
        key = (id(params), *key)
        if key not in self._held:
            self._held[key] = (params, make())
        return self._held[key][1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a measure reads a checkpoint with: an argument of the compiled program, never a constant in it.

    Attributes:
        batches, concepts: the task's fixed evaluation (see Evaluation).
        reference: initial, previous and final parameters of the same seed.
        prepared: what measures froze before the pass, by name.
        model, inputs, read, loss: the static parts.
        shared: what measures compute in common in this reading; None computes everything anew.
        labels: the task's labels for probes.
    """

    batches: Mapping[str, Batch]
    concepts: Mapping[str, Any]
    reference: Reference
    prepared: Mapping[str, Any]
    model: Model = field(metadata={"static": True})
    inputs: Inputs = field(metadata={"static": True})
    read: tuple[int, ...] = field(metadata={"static": True})
    loss: Loss = field(metadata={"static": True})
    shared: Shared | None = field(default=None, metadata={"static": True})
    labels: Mapping[str, Labels] = field(default_factory=dict)


Null = Literal["untrained", "another", "frequencies", "own"]

MeasureFunction = Callable[[Params, Context], Mapping[str, Array] | Array]


Holders = Callable[[Literal["role", "concept"], str], str]
"""A half sentence on which models (tasks) have a role (a concept); empty where nothing is known."""


@dataclass(frozen=True)
class Measure:
    """A reading of one checkpoint.

    Attributes:
        name: the variable of the dataset; with options other than the published default it carries them as a suffix.
        function: ``(params, context) -> array`` (or ``{variable: array}`` for several at once), pure.
        dims: the array's trailing dims, or a mapping of them by variable; the runner adds (seed, step).
        roles: the model's roles that it needs. concepts, splits: the task's that it needs.
        uses: which references it looks at; "final" makes it retrospective, "initial" and "previous" keep it online.
        prepare: by name, ``(reference, context) -> pytree`` made once a seed before the pass, found in ``context.prepared``.
        options: the settings it was made with, stored beside the result.
        labels: by dim, the coordinate of its places, where it isn't the runner's own (frequency, class, parameter); or a function
            that gives it, of the model and the names of the task's labels.
        null: what its values are compared with: those of untrained networks, each its own final model, or (another) with
            another one as final model, for what compares two checkpoints; its own with other frequencies in the place of the key
            ones; or (own) another of its variables.
        units: of the values; "loss" stands for those of the run's own loss. source: the paper that defines it.
    """

    name: str
    function: MeasureFunction
    dims: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    roles: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    prepare: Mapping[str, Callable[[Reference, Context], PyTree]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, tuple[Any, ...] | Callable[[Model, Sequence[str]], tuple[Any, ...]]] = field(default_factory=dict)
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
        concepts: frozenset[str],
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
        lacking = [f"the model's role '{role}'{holders('role', role)}" for role in self.roles if not getattr(roles, role)]
        lacking += [f"the task's concept '{name}'{holders('concept', name)}" for name in self.concepts if name not in concepts]
        lacking += [f"the task's split '{name}'" for name in self.splits if splits is not None and name not in splits]
        lacking += [f"the {name} parameters" for name in sorted(self.uses - references)]
        return f"needs {', '.join(lacking)}" if lacking else None

    def read(self, params: Params, context: Context) -> dict[str, Array]:
        """The values by variable. Raises MeasureError where the function returns other ones than declared."""
        values = self.function(params, context)
        values = dict(values) if isinstance(values, Mapping) else {self.name: values}
        for name, dims in self.variables.items():
            if name not in values or values[name].ndim != len(dims):
                shape = values[name].shape if name in values else "nothing"
                raise MeasureError(f"{self.name}: dims {dims} are declared for {name}, the function returned {shape}")
        extra = sorted(set(values) - set(self.variables))
        if extra:
            raise MeasureError(f"{self.name}: the function returned {extra}, which aren't declared in dims")
        return values


class Estimator(NamedTuple):
    """A computation with state (a sampler, a fit) as pure functions.

    ``init(key, start) -> state``; ``step(key, state, batch) -> (state, info)``; ``result(state) -> NamedTuple``. Burn-in is a
    count in the state, and nothing is accumulated before it; traces are what ``lax.scan`` stacks of ``info``.
    """

    init: Callable[[PRNGKey, PyTree], PyTree]
    step: Callable[[PRNGKey, PyTree, PyTree], tuple[PyTree, PyTree]]
    result: Callable[[PyTree], NamedTuple]
