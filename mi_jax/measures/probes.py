"""What is decodable: linear probes of any site, position and concept, with control tasks (arXiv
1909.03368).

A probe is fitted on one half of the evaluation's examples and read on the other. The control task
has the same labels and halves, and what the network makes of the inputs after their tokens were
renamed at random (``concepts.renamed``): what a probe decodes of it, it decodes of tokens alone.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import MeasureError, nearest, require
from mi_jax.contracts import Context, Labels, Measure, Model, Reference, renamed
from mi_jax.measures.activations import (
    CONTROL,
    as_stack,
    by_width,
    centred,
    check_sites,
    in_order,
    positions_of,
    probed_sites,
    site_vectors,
)
from mi_jax.measures.evaluation import shared
from mi_jax.measures.linear_probes import (
    Rows,
    angle_scores,
    by_size,
    logistic_fit,
    one_hot_rows,
    ridge_fit,
    right_share,
    rows_of,
)

Kind = Literal["ridge", "logistic", "circular"]

SOURCE = "arXiv 1909.03368"

_TEST_SHARE = 0.5
_SEED = 0
"""Of the random halves and of the renamed tokens: the same for every checkpoint, so that curves are
smooth.
"""


@dataclass(frozen=True)
class Probe:
    """What is fitted, where and on what: the options of every measure of probes.

    Attributes:
        kind: "ridge": least squares onto one-hot classes; "logistic": multinomial logistic
            regression; "circular": ridge onto the angle 2 pi k c / classes, k chosen on the
            training half.
        ridge: its strength, relative to the mean variance of the vectors (see ``linear_probes``).
        held_out: None: examples are halved at random; a concept's name: half of its values are held
            out, so that the probe is read on residues that it never saw.
        sites, concepts: a name, or several. None takes all concepts, and the sites that the forward
            pass computes anyway: the optional ones are copies of others, or linear images of them
            by head.
        position: of the input; None takes all that are read, each a row of its own.
    """

    kind: Kind = "ridge"
    ridge: float = 1e-3
    held_out: str | None = None
    sites: str | tuple[str, ...] | None = None
    concepts: str | tuple[str, ...] | None = None
    position: int | None = None

    def __post_init__(self) -> None:
        require(
            self.kind in get_args(Kind),
            f"kind={self.kind!r} is unknown; {nearest(str(self.kind), get_args(Kind))}",
        )
        require(self.ridge > 0, f"ridge={self.ridge}: the strength must be positive")
        for name in ("sites", "concepts"):
            chosen = getattr(self, name)
            require(
                chosen is None or len(chosen) > 0, f"{name} is empty; leave it out for all of them"
            )

    def suffix(self) -> str:
        """What a measure with these options adds to its name; nothing with the published ones."""
        parts = [self.kind] * (self.kind != "ridge")
        parts += [f"ridge_{self.ridge:g}"] * (self.ridge != Probe.ridge)
        parts += [f"held_out_{self.held_out}"] * (self.held_out is not None)
        parts += [f"at_{self.position}"] * (self.position is not None)
        for chosen in (self.sites, self.concepts):
            if chosen is not None:
                told = "+".join(_several(chosen))
                parts.append(
                    told if len(told) <= 40 else hashlib.sha256(told.encode()).hexdigest()[:8]
                )
        return "".join(f"_{part}" for part in parts)

    def site_names(self, model: Model) -> tuple[str, ...]:
        """The sites that are probed."""
        return probed_sites(model, optional=False) if self.sites is None else _several(self.sites)

    def concept_names(self, known: Sequence[str]) -> tuple[str, ...]:
        """The concepts that are probed, of the task's."""
        return tuple(sorted(known)) if self.concepts is None else _several(self.concepts)

    def check(self, context: Context) -> None:
        """Raises MeasureError for a site or position that the model, or a concept that the task
        doesn't have.
        """
        check_sites(context.model, self.site_names(context.model))
        positions_of(context, self.position)
        asked = (
            *self.concept_names(tuple(context.labels)),
            *((self.held_out,) if self.held_out else ()),
        )
        for name in asked:
            known_labels(context, name, self.position)

    def coordinates(self) -> Mapping[str, Callable[[Model, Sequence[str]], tuple[str, ...]]]:
        """The coordinates of the dims site and concept."""
        return {
            "site": lambda model, known: self.site_names(model),
            "concept": lambda model, known: self.concept_names(known),
        }

    def prepare(self) -> dict[str, Callable[[Reference, Context], Any]]:
        """What is made once a seed: which examples are trained and tested on, and the control
        task's inputs.
        """
        return {**{half.name: half for half in self._halves()}, CONTROL: _control_inputs}

    def halves(self, context: Context) -> tuple[Int[Array, " trained"], Int[Array, " tested"]]:
        """Which examples are trained and tested on."""
        trained, tested = self._halves()
        return context.prepared[trained.name], context.prepared[tested.name]

    def _halves(self) -> tuple["_Half", "_Half"]:
        return _Half("trained", self.held_out, self.position), _Half(
            "tested", self.held_out, self.position
        )

    def options(self) -> dict[str, Any]:
        """As stored beside a result."""
        told = asdict(self) | {"test_share": _TEST_SHARE, "seed": _SEED}
        told |= {
            name: _several(told[name]) for name in ("sites", "concepts") if told[name] is not None
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in told.items()
            if value is not None
        }


def probe_of(options: Mapping[str, Any]) -> Probe:
    """The probe with these options. Raises ConfigError for one that no probe has."""
    known = [one.name for one in fields(Probe)]
    for name in options:
        require(name in known, f"a probe has no setting '{name}'; {nearest(name, known)}")
    return Probe(**options)


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _host_inputs(context: Context) -> np.ndarray:
    return np.concatenate(
        [np.asarray(context.batches[split].inputs) for split in sorted(context.batches)]
    )


def _control_inputs(reference: Reference, context: Context) -> Shaped[Array, "example ..."]:
    return jnp.asarray(renamed(_host_inputs(context), context.inputs.alphabet, _SEED))


@dataclass(frozen=True)
class _Half:
    """Which rows, examples times positions, a probe is fitted or read on: what probes of equal
    halves share.
    """

    half: Literal["trained", "tested"]
    held_out: str | None
    position: int | None

    @property
    def name(self) -> str:
        """Among what is prepared."""
        held_out = f"_{self.held_out}" if self.held_out else ""
        return f"probe_{self.half}{held_out}" + (
            f"_at_{self.position}" if self.position is not None else ""
        )

    def __call__(self, reference: Reference, context: Context) -> Int[Array, " row"]:
        rng, count = np.random.default_rng(_SEED), len(positions_of(context, self.position))
        if self.held_out is None:
            # All positions of an example are on the same side.
            order = rng.permutation(len(_host_inputs(context)))
            rows = (order[:, None] * count + np.arange(count)).astype(np.int32)
            tested = round(_TEST_SHARE * len(order))
            return jnp.asarray((rows[:tested] if self.half == "tested" else rows[tested:]).ravel())
        values = np.asarray(
            row_values(known_labels(context, self.held_out, self.position), context, self.position)
        )
        known = np.unique(values)
        kept_out = np.isin(
            values, rng.permutation(known)[: max(1, round(_TEST_SHARE * len(known)))]
        )
        return jnp.asarray(
            np.flatnonzero(kept_out if self.half == "tested" else ~kept_out).astype(np.int32)
        )


class Decoded(NamedTuple):
    """The share of examples whose class a probe gives the largest score, by site and concept."""

    test: Float[Array, "site concept"]
    train: Float[Array, "site concept"]
    control: Float[Array, "site concept"]
    """On the test half of the control task."""


def known_labels(context: Context, concept: str, position: int | None) -> Labels:
    """The labels of a concept. Raises MeasureError where the task has none of it, or none at the
    position.
    """
    if concept not in context.labels:
        raise MeasureError(
            f"the task has no labels of a concept '{concept}'; {nearest(concept, context.labels)}"
        )
    if context.labels[concept].values.ndim == 2 and position not in (None, *context.read):
        raise MeasureError(
            f"position={position}: '{concept}' has labels at the positions {list(context.read)}"
            " alone"
        )
    return context.labels[concept]


def concept_labels(probe: Probe, context: Context) -> list[Labels]:
    """The labels of the probed concepts. Raises MeasureError where the probe can't be had: see
    ``Probe.check``.
    """
    probe.check(context)
    return [context.labels[name] for name in probe.concept_names(tuple(context.labels))]


def row_values(labels: Labels, context: Context, position: int | None) -> Int[Array, " row"]:
    """The class of every row (see ``activations``)."""
    values = jnp.asarray(labels.values)
    if values.ndim == 1:
        return jnp.repeat(values, len(positions_of(context, position)))
    return values.ravel() if position is None else values[:, context.read.index(position)]


@shared
def decoded(params: Params, context: Context, probe: Probe) -> Decoded:
    """Fits a probe at every site, for every concept and its control task, and reads it: one program
    for each width of a site.
    """
    sites, held = probe.site_names(context.model), concept_labels(probe, context)
    trained, tested = probe.halves(context)
    order = jnp.concatenate([trained, tested])
    values = [row_values(one, context, probe.position)[order] for one in held]
    positions = positions_of(context, probe.position)
    own, other = (
        site_vectors(params, context, sites, positions, control) for control in (False, True)
    )

    def one_site(
        both: tuple[Float[Array, "example d"], Float[Array, "example d"]],
    ) -> Float[Array, "kind concept"]:
        X, control = (x[order] for x in both)
        n, circular = len(trained), probe.kind == "circular"
        test, train = _read_site(X, values, held, n, probe)
        # Of the control task only the test half is asked for; a circle also looks at how the
        # training half was fitted.
        return jnp.stack(
            [test, train, _read_site(control, values, held, n, probe, whole=circular)[0]]
        )

    groups = [
        (names, jax.lax.map(one_site, (as_stack(own, names), as_stack(other, names))))
        for names in by_width(own)
    ]
    return Decoded(*jnp.moveaxis(in_order(groups, sites), 1, 0))


def _read_site(
    X: Float[Array, "row d"],
    values: Sequence[Int[Array, " row"]],
    held: Sequence[Labels],
    n: int,
    probe: Probe,
    *,
    whole: bool = True,
) -> tuple[Float[Array, " concept"], Float[Array, " concept"]]:
    """Test and training accuracies of one site, its n training rows first; NaN where a vector isn't
    finite.

    Args:
        whole: whether training rows are read too; else the second result is NaN.
    """
    classes = tuple(one.classes for one in held)
    rows, Y = rows_of(classes), one_hot_rows([x[:n] for x in values], classes)
    around, _ = centred(X, n)
    asked = around if whole else around[n:]

    def scored() -> Float[Array, "class asked"]:
        W, b = fit(around[:n], Y, rows, probe)
        return W @ asked.T + b[:, None]

    def constant() -> Float[Array, "class asked"]:
        return Y.mean(axis=1, keepdims=True) * jnp.ones((1, len(asked)))

    # A site that never varies (what precedes attention at a fixed token) costs nothing; a loop's
    # cond computes one side alone.
    scores = jax.lax.cond((around == 0).all(), constant, scored)
    read = by_size(rows, lambda s, y, x: _shares(s, y, x, n, probe), [scores, Y], values)
    test, train = (
        jnp.where(jnp.isfinite(X).all(), jnp.stack(x), jnp.nan) for x in zip(*read, strict=True)
    )
    return test, train


def fit(
    X: Float[Array, "example d"], Y: Float[Array, "row example"], rows: Rows, probe: Probe
) -> Any:
    """Weights and biases of the probe's kind."""
    return (
        logistic_fit(X, Y, rows, probe.ridge)
        if probe.kind == "logistic"
        else ridge_fit(X, Y, probe.ridge)
    )


def _shares(
    scores: Float[Array, "class asked"],
    Y: Float[Array, "class trained"],
    values: Int[Array, " row"],
    n: int,
    probe: Probe,
) -> tuple[Scalar, Scalar]:
    """Test and training accuracy of one concept; NaN for the latter where scores are of the test
    rows alone.

    Test rows of a class that no training row has are left out, unless the probe knows its angle.
    """
    circular, tested = probe.kind == "circular", values[n:]
    right = right_share(angle_scores(scores, Y) if circular else scores, values[-scores.shape[1] :])
    known = jnp.ones(len(tested)) if circular else Y.max(axis=1)[tested]
    return (right[-len(tested) :] * known).sum() / known.sum(), right[: -len(tested)].mean()


def probe_accuracy(**options: Any) -> Measure:
    """How often a probe is right on the test half, by site and concept.

    ``_train``: on the training half; ``_control``: on the test half of the control task, which
    knows tokens alone.

    Args:
        options: see ``Probe``.
    """
    probe = probe_of(options)
    name = f"probe_accuracy{probe.suffix()}"

    def function(params: Params, context: Context) -> dict[str, Array]:
        read = decoded(params, context, probe)
        return {name: read.test, f"{name}_train": read.train, f"{name}_control": read.control}

    return measure_of(
        name,
        function,
        dict.fromkeys((name, f"{name}_train", f"{name}_control"), ("site", "concept")),
        probe,
    )


def probe_selectivity(**options: Any) -> Measure:
    """Accuracy less that on the control task, both on the test half: what is decodable beyond what
    tokens alone give away.

    Args:
        options: see ``Probe``.
    """
    probe = probe_of(options)
    name = f"probe_selectivity{probe.suffix()}"

    def function(params: Params, context: Context) -> Float[Array, "site concept"]:
        read = decoded(params, context, probe)
        return read.test - read.control

    return measure_of(name, function, ("site", "concept"), probe)


def measure_of(
    name: str, function: Any, dims: Any, probe: Probe, *, source: str = SOURCE, **more: Any
) -> Measure:
    """A measure of a probe, with what all of them say of themselves."""
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
