"""Linear probes: which concepts can be decoded at which site, beside a control task.

A probe is fitted on one half of the evaluation's examples and read on the other half. The control
task (Hewitt and Liang, arXiv 1909.03368) has the same labels and halves, but takes the network's
activations on inputs whose tokens were renamed at random (``contracts.renamed_inputs``). The
probe's accuracy on it says how much the tokens' identity alone gives away.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, MeasureError, check_choice, nearest
from mi_jax.contracts import (
    Context,
    Labels,
    Measure,
    Model,
    Reference,
    option_suffix,
    renamed_inputs,
)
from mi_jax.measures.activations import (
    CONTROL,
    centred_rows,
    check_sites,
    map_sites,
    positions_of,
    probed_sites,
    site_vectors,
)
from mi_jax.measures.evaluation import all_inputs, shared
from mi_jax.measures.linear_probes import (
    angle_scores,
    by_size,
    fit,
    one_hot_rows,
    right_share,
    row_ranges,
)

Kind = Literal["ridge", "logistic", "circular"]
"""Names of the kinds of probe: see ``Probe``."""

SOURCE = "arXiv 1909.03368"

_TEST_SHARE = 0.5
"""Share of the examples in the test half."""

_SEED = 0
"""Seed of the random halves and of the renamed tokens.

It is the same for every checkpoint, so that curves are smooth.
"""


@dataclass(frozen=True)
class Probe:
    """The kind of a probe, and the activations and labels it is fitted on.

    These are the options of every measure of probes.

    Attributes:
        kind: "ridge": least squares onto one-hot classes. "logistic": multinomial logistic
            regression. "circular": ridge regression onto the angle 2 pi k c / classes of class c,
            with k chosen on the training half.
        ridge: strength of the penalty, relative to the mean variance of the vectors (see
            ``linear_probes``).
        held_out: None halves the examples at random. The name of a concept holds out half of its
            values, so that the probe is read on values that it never saw.
        sites: a name, or several. None takes all sites that the forward pass computes anyway; the
            optional ones are copies of others, or linear images of them by head.
        concepts: a name, or several. None takes all concepts of the task.
        position: position of the input whose activations are probed. None takes all read
            positions, each of them a row of its own.
    """

    kind: Kind = "ridge"
    ridge: float = 1e-3
    held_out: str | None = None
    sites: str | tuple[str, ...] | None = None
    concepts: str | tuple[str, ...] | None = None
    position: int | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(Kind))
        if not self.ridge > 0:
            raise ConfigError(
                f"ridge={self.ridge} is invalid. The strength of the penalty must be positive."
            )
        for name in ("sites", "concepts"):
            chosen = getattr(self, name)
            if chosen is not None and len(chosen) == 0:
                raise ConfigError(f"{name} is empty. Leave it out to take all {name}.")

    def suffix(self) -> str:
        """The suffix of a measure's name: options other than the published ones."""
        chosen = {
            "kind": self.kind,
            "ridge": self.ridge,
            "held_out": self.held_out,
            "at": self.position,
            "sites": None if self.sites is None else _as_tuple(self.sites),
            "concepts": None if self.concepts is None else _as_tuple(self.concepts),
        }
        published = dict.fromkeys(chosen) | {"kind": Probe.kind, "ridge": Probe.ridge}
        bare = ("kind", "sites", "concepts")
        return option_suffix(chosen, published, bare=bare, formats={"ridge": "g"})

    def site_names(self, model: Model) -> tuple[str, ...]:
        """The sites of the model that are probed."""
        return probed_sites(model, optional=False) if self.sites is None else _as_tuple(self.sites)

    def concept_names(self, available: Sequence[str]) -> tuple[str, ...]:
        """The concepts that are probed, out of those of the task."""
        return tuple(sorted(available)) if self.concepts is None else _as_tuple(self.concepts)

    def check(self, context: Context) -> None:
        """Checks that the model and the task have what this probe asks for.

        Raises:
            MeasureError: for a site or a position that the model does not have, or a concept that
                the task does not have.
        """
        check_sites(context.model, self.site_names(context.model))
        positions_of(context, self.position)
        for name in self.concept_names(tuple(context.labels)):
            labels_of(context, name, self.position)
        if self.held_out:
            labels_of(context, self.held_out, self.position)

    def coordinates(self) -> Mapping[str, Callable[[Model, Sequence[str]], tuple[str, ...]]]:
        """Coordinates of the dims site and concept, for ``Measure.coordinates``."""
        return {
            "site": lambda model, available: self.site_names(model),
            "concept": lambda model, available: self.concept_names(available),
        }

    def prepare(self) -> dict[str, Callable[[Reference, Context], Any]]:
        """Preparations once per seed: the two halves, and the control task's inputs."""
        return {**{half.name: half for half in self._halves()}, CONTROL: _control_inputs}

    def halves(self, context: Context) -> tuple[Int[Array, " trained"], Int[Array, " tested"]]:
        """Indices of the two halves of the vectors, each vector an example at a position.

        Returns:
            The indices that the probe is fitted on, and those that it is read on.
        """
        trained, tested = self._halves()
        return context.prepared[trained.name], context.prepared[tested.name]

    def _halves(self) -> tuple["_Half", "_Half"]:
        return (
            _Half("trained", self.held_out, self.position),
            _Half("tested", self.held_out, self.position),
        )

    def options(self) -> dict[str, Any]:
        """The options that are set, as stored beside a result."""
        options = asdict(self) | {"test_share": _TEST_SHARE, "seed": _SEED}
        for name in ("sites", "concepts"):
            if options[name] is not None:
                options[name] = list(_as_tuple(options[name]))
        return {name: value for name, value in options.items() if value is not None}


def probe_of(options: Mapping[str, Any]) -> Probe:
    """The probe with the given options.

    Raises:
        ConfigError: for an option that a probe does not have, or that is invalid.
    """
    known = [field.name for field in fields(Probe)]
    for name in options:
        if name not in known:
            raise ConfigError(f"A probe has no setting '{name}'; {nearest(name, known)}")
    return Probe(**options)


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _control_inputs(reference: Reference, context: Context) -> Shaped[Array, "example ..."]:
    """The inputs of the control task."""
    return jnp.asarray(
        renamed_inputs(np.asarray(all_inputs(context)), context.inputs.alphabet, _SEED)
    )


@dataclass(frozen=True)
class _Half:
    """The preparation of one half: indices of the vectors that a probe is fitted or read on.

    Probes with equal halves share it by its name.

    Attributes:
        half: which of the two.
        held_out: as in ``Probe``.
        position: as in ``Probe``; there is a vector for every example and position.
    """

    half: Literal["trained", "tested"]
    held_out: str | None
    position: int | None

    @property
    def name(self) -> str:
        """Its name among the prepared values; every attribute is part of it."""
        held_out = f"_{self.held_out}" if self.held_out else ""
        position = "" if self.position is None else f"_at_{self.position}"
        return f"probe_{self.half}{held_out}{position}"

    def __call__(self, reference: Reference, context: Context) -> Int[Array, " row"]:
        rng, count = np.random.default_rng(_SEED), len(positions_of(context, self.position))
        if self.held_out is None:
            # All positions of an example are in the same half.
            order = rng.permutation(len(all_inputs(context)))
            rows = (order[:, None] * count + np.arange(count)).astype(np.int32)
            tested = round(_TEST_SHARE * len(order))
            return jnp.asarray((rows[:tested] if self.half == "tested" else rows[tested:]).ravel())
        labels = labels_of(context, self.held_out, self.position)
        values = np.asarray(row_values(labels, context, self.position))
        classes = np.unique(values)
        held_out_count = max(1, round(_TEST_SHARE * len(classes)))
        is_held_out = np.isin(values, rng.permutation(classes)[:held_out_count])
        return jnp.asarray(
            np.flatnonzero(is_held_out if self.half == "tested" else ~is_held_out).astype(np.int32)
        )


class Decoded(NamedTuple):
    """The accuracy of probes: the share of rows whose class gets the largest score.

    Attributes:
        test: accuracy on the test half.
        train: accuracy on the training half.
        control: accuracy on the test half of the control task.
    """

    test: Float[Array, "site concept"]
    train: Float[Array, "site concept"]
    control: Float[Array, "site concept"]


def labels_of(context: Context, concept: str, position: int | None) -> Labels:
    """The labels of a concept.

    Raises:
        MeasureError: if the task has no such concept, or no labels at that position.
    """
    if concept not in context.labels:
        raise MeasureError(
            f"The task has no labels of a concept '{concept}'; {nearest(concept, context.labels)}"
        )
    if context.labels[concept].values.ndim == 2 and position not in (None, *context.read):
        raise MeasureError(
            f"position={position} has no labels of '{concept}'. The task labels the positions"
            f" {list(context.read)}. Choose one of them, or another concept."
        )
    return context.labels[concept]


def concept_labels(probe: Probe, context: Context) -> list[Labels]:
    """The labels of the probed concepts.

    Raises:
        MeasureError: if the model or the task lacks what the probe asks for: see ``Probe.check``.
    """
    probe.check(context)
    return [context.labels[name] for name in probe.concept_names(tuple(context.labels))]


def row_values(labels: Labels, context: Context, position: int | None) -> Int[Array, " row"]:
    """The class of every row, in the order of ``activations.site_vectors``.

    Args:
        labels: of one concept.
        context: of the reading.
        position: as in ``Probe``.
    """
    values = jnp.asarray(labels.values)
    if values.ndim == 1:
        return jnp.repeat(values, len(positions_of(context, position)))
    return values.ravel() if position is None else values[:, context.read.index(position)]


@shared
def decoded(params: Params, context: Context, probe: Probe) -> Decoded:
    """Fits and reads a probe at every site, for every concept and its control task.

    Args:
        params: of the checkpoint.
        context: of the reading.
        probe: the options.

    Raises:
        MeasureError: if the model or the task lacks what the probe asks for.
    """
    sites, labels = probe.site_names(context.model), concept_labels(probe, context)
    trained, tested = probe.halves(context)
    order, n = jnp.concatenate([trained, tested]), len(trained)
    values = [row_values(concept, context, probe.position)[order] for concept in labels]
    positions = positions_of(context, probe.position)
    vectors, control_vectors = (
        site_vectors(params, context, sites, positions, control) for control in (False, True)
    )

    def read(
        X: Float[Array, "example d"], X_control: Float[Array, "example d"]
    ) -> Float[Array, "kind concept"]:
        X, X_control = X[order], X_control[order]
        test, train = _accuracies(X, values, labels, n, probe)
        # Of the control task only the test half is asked for. A circular probe needs the scores of
        # the training half too, to choose its frequency.
        circular = probe.kind == "circular"
        control, _ = _accuracies(X_control, values, labels, n, probe, train=circular)
        return jnp.stack([test, train, control])

    return Decoded(*jnp.moveaxis(map_sites(read, sites, vectors, control_vectors), 1, 0))


def _accuracies(
    X: Float[Array, "row d"],
    values: Sequence[Int[Array, " row"]],
    labels: Sequence[Labels],
    n: int,
    probe: Probe,
    *,
    train: bool = True,
) -> tuple[Float[Array, " concept"], Float[Array, " concept"]]:
    """Test and training accuracy at one site; NaN if a vector is not finite.

    Args:
        X: the vectors, training rows first.
        values: the class of every row, per concept.
        labels: of each concept.
        n: number of training rows.
        probe: the options.
        train: whether to score training rows too; else their accuracy is NaN.

    Returns:
        Test accuracy and training accuracy of each concept.
    """
    classes = tuple(concept.classes for concept in labels)
    rows, Y = row_ranges(classes), one_hot_rows([x[:n] for x in values], classes)
    around, _ = centred_rows(X, n)
    scored = around if train else around[n:]

    def fitted() -> Float[Array, "class scored"]:
        W, b = fit(probe.kind, around[:n], Y, rows, probe.ridge)
        return W @ scored.T + b[:, None]

    def constant() -> Float[Array, "class scored"]:
        return Y.mean(axis=1, keepdims=True) * jnp.ones((1, len(scored)))

    # A site that never varies (such as those before attention, at a fixed token) costs nothing:
    # inside a loop, cond computes only the branch that it takes.
    scores = jax.lax.cond((around == 0).all(), constant, fitted)
    shares = by_size(rows, lambda s, y, x: _right_shares(s, y, x, n, probe), [scores, Y], values)
    test_share, train_share = (
        jnp.where(jnp.isfinite(X).all(), jnp.stack(x), jnp.nan) for x in zip(*shares, strict=True)
    )
    return test_share, train_share


def _right_shares(
    scores: Float[Array, "class scored"],
    Y: Float[Array, "class trained"],
    values: Int[Array, " row"],
    n: int,
    probe: Probe,
) -> tuple[Scalar, Scalar]:
    """Test and training accuracy of one concept.

    Test rows of a class that no training row has are left out, unless the probe is circular and so
    knows the angle of that class.

    Args:
        scores: of all rows, or of the test rows alone; then training accuracy is NaN.
        Y: one-hot classes of the training rows.
        values: the class of every row, training rows first.
        n: number of training rows.
        probe: the options.

    Returns:
        Test accuracy and training accuracy.
    """
    circular, tested = probe.kind == "circular", values[n:]
    right = right_share(angle_scores(scores, Y) if circular else scores, values[-scores.shape[1] :])
    known = jnp.ones(len(tested)) if circular else Y.max(axis=1)[tested]
    return (right[-len(tested) :] * known).sum() / known.sum(), right[: -len(tested)].mean()


def probe_accuracy(**options: Any) -> Measure:
    """Accuracy of linear probes by site and concept.

    The mean over a half's rows of [s_y > max_{c != y} s_c], 1 / m for a row whose class y shares
    the largest score s with m - 1 others. The scores are s = W x + b (see ``linear_probes``), x the
    vectors less their mean over the training half; for a circular probe they are those of
    ``angle_scores``. Test rows of a class that no training row has are left out (NaN if none is
    left), except by a circular probe, which knows the angle of every class.

    High accuracy means that the concept is decodable at the site, if accuracy on the control task
    is clearly lower.

    Args:
        options: fields of ``Probe``.

    Returns:
        A measure with three variables, dims (site, concept), all between 0 and 1:
        ``probe_accuracy`` on the test half, ``probe_accuracy_train`` on the training half, and
        ``probe_accuracy_control`` on the test half of the control task. Options are a suffix after
        ``probe_accuracy``. Source: arXiv 1909.03368.

    Raises:
        ConfigError: for an option that a probe does not have, or that is invalid.

    Example:
        >>> probe_accuracy(kind="logistic", concepts=("a", "b")).name
        'probe_accuracy_logistic_a+b'
    """
    probe = probe_of(options)
    name = f"probe_accuracy{probe.suffix()}"

    def _probe_accuracy(params: Params, context: Context) -> dict[str, Array]:
        accuracy = decoded(params, context, probe)
        return {
            name: accuracy.test,
            f"{name}_train": accuracy.train,
            f"{name}_control": accuracy.control,
        }

    variables = (name, f"{name}_train", f"{name}_control")
    dims = dict.fromkeys(variables, ("site", "concept"))
    return measure_of(name, _probe_accuracy, dims, probe)


def probe_selectivity(**options: Any) -> Measure:
    """Selectivity of linear probes: accuracy less that on the control task.

    Both are read on the test half. Positive values mean that the site holds more of the concept
    than the tokens alone give away; an untrained network has a mean of 0.

    Args:
        options: fields of ``Probe``.

    Returns:
        A measure ``probe_selectivity`` (with a suffix for options) with dims (site, concept),
        between -1 and 1. Source: arXiv 1909.03368.

    Raises:
        ConfigError: for an option that a probe does not have, or that is invalid.
    """
    probe = probe_of(options)
    name = f"probe_selectivity{probe.suffix()}"

    def _probe_selectivity(params: Params, context: Context) -> Float[Array, "site concept"]:
        accuracy = decoded(params, context, probe)
        return accuracy.test - accuracy.control

    return measure_of(name, _probe_selectivity, ("site", "concept"), probe)


def measure_of(
    name: str, function: Any, dims: Any, probe: Probe, *, source: str = SOURCE, **more: Any
) -> Measure:
    """A measure of a probe, with the preparations, options and coordinates of that probe.

    Args:
        name: of the measure.
        function: as in ``Measure``.
        dims: as in ``Measure``.
        probe: its options.
        source: the paper that defines the measure.
        more: further fields of ``Measure``; options and coordinates are added to the probe's.
    """
    return Measure(
        name,
        function,
        dims,
        prepare=probe.prepare(),
        options={**probe.options(), **more.pop("options", {})},
        coordinates={**probe.coordinates(), **more.pop("coordinates", {})},
        null="own_variable",
        source=source,
        **more,
    )
