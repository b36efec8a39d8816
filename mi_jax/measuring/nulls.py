"""Nulls: readings where there is nothing to find.

They are of untrained networks, of other frequencies in place of the key ones, and of the same
networks with other names for the elements of the task.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from mi_jax.basics.dims import Params
from mi_jax.basics.precision import cast, computing_in
from mi_jax.basics.records import digest
from mi_jax.basics.streams import stream
from mi_jax.contracts import Context, Measure, Reference, Shared, Subject
from mi_jax.measuring.files import cached, write_dataset
from mi_jax.measuring.history import OWN_SUFFIX, History, ReferenceChoice
from mi_jax.measuring.labelling import labelled
from mi_jax.measuring.merging import united
from mi_jax.measuring.program import (
    Reader,
    make_context,
    prepared_context,
    read_trajectory,
    seed_contexts,
)
from mi_jax.measuring.renaming import Names, random_names, renamed
from mi_jax.measuring.sources import code_digest, text_digest
from mi_jax.training.trajectory import Trajectory

KEYS = ("final_key_frequencies", "final_key_irreps")
"""Prepared masks of the final model's key frequencies (irreps), which other ones replace."""
_FRESH = ("untrained", "untrained_pair")
"""Kinds of null that freshly initialised networks give."""
STRUCTURE = (
    "gini_embedding",
    "gini_unembedding",
    "key_mode_share_unembedding",
    "irrep_divergence_embedding",
    "irrep_divergence_unembedding",
)
"""Measures whose reading says that there is Fourier (irrep) structure in a table."""
EXPLANATION = (
    "logit_fve",
    "restricted_loss",
    "excluded_loss",
    "logits_explained",
    "hidden_restricted_loss",
    "hidden_excluded_loss",
)
"""Measures whose reading says that waves of the answer explain the network."""
DRAWS = 20
"""Default number of untrained networks."""
SNAPSHOTS = 12
"""Default number of snapshots that are read with other frequencies."""
_RENAMING = 1 << 20
"""Number of the substream of "null" that other names are drawn from."""


class Draws(NamedTuple):
    """Numbers of draws of the nulls by which claims are tested.

    Attributes:
        renamed: permutations of the elements, the same for all seeds.
        relabelled: permutations of the answers, for each seed.
        untrained: untrained networks that slow measures are read of.
    """

    renamed: int = 199
    relabelled: int = 19
    untrained: int = 5


CLAIMS = Draws()
"""Default numbers of draws by which claims are tested."""


class Nulls(NamedTuple):
    """Readings under the nulls of the measures.

    Figures draw the first three (``bands``), claims are tested by the last three.

    Attributes:
        untrained: readings of freshly initialised networks, each compared with itself as the final
            model ("untrained") or with another one ("untrained_pair"); dims (draw, ...).
        frequencies: readings of some snapshots with as many other frequencies (irreps) in place of
            the final model's key ones; dims (seed, step, draw, ...).
        expensive: readings, by measures that are taken only when named, of freshly initialised
            networks; dims (draw, ...).
        renamed: readings of ``STRUCTURE`` at the last snapshot with the elements renamed at random
            and the key frequencies chosen anew; dims (seed, draw). A draw is one permutation, in
            all seeds. If a reading says only that a trained table is uneven, whatever the names
            of its rows, it has the same distribution as these.
        relabelled: readings of ``EXPLANATION`` at the last snapshot with the key frequencies kept
            and the answers and classes renamed at random; dims (seed, draw). Wherever a formula
            has the answer a o b or the class c it has pi(a o b), pi(c), pi a random permutation;
            labels in losses stay right. Logits that are waves of a o b - c are none of
            pi(a o b) - pi(c), while their size, their noise and the number of key frequencies are
            the same.
    """

    untrained: xr.Dataset
    frequencies: xr.Dataset
    expensive: xr.Dataset = xr.Dataset()
    renamed: xr.Dataset = xr.Dataset()
    relabelled: xr.Dataset = xr.Dataset()

    @property
    def bands(self) -> dict[str, xr.Dataset]:
        """Nulls that figures draw beside readings, by name."""
        names = ("untrained", "frequencies", "expensive")
        return {name: getattr(self, name) for name in names}


def read_nulls(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    *,
    expensive: Sequence[Measure] = (),
    draws: int = DRAWS,
    snapshots: int = SNAPSHOTS,
    claims: Draws = CLAIMS,
    fresh: bool = True,
    reference: ReferenceChoice = "root",
) -> Nulls:
    """Reads each measure under its own ``null``, and those of claims under other names.

    The readings are stored in the run's folder ``nulls``, and read again when weights, measures or
    code change.

    Args:
        trajectory: the stored snapshots.
        subject: the model, task and loss that are measured.
        measures: the measures.
        expensive: slow measures, which are read of ``claims.untrained`` networks.
        draws: number of untrained networks; the number of sets of frequencies is a quarter of it.
        snapshots: number of snapshots, evenly along the run, that are read with other frequencies.
        claims: numbers of draws by which claims are tested.
        fresh: whether untrained networks are read.
        reference: whose end is the final model; see ``history.ReferenceChoice``.

    Returns:
        The readings by kind of null.
    """
    untrained = [
        measure
        for measure in measures
        if fresh and measure.null in _FRESH and measure.uses <= {"final"} and measure.variables
    ]
    swapped = [measure for measure in measures if measure.null == "other_frequencies"]
    suffix = OWN_SUFFIX if reference == "own" else ""
    first = _stored(
        trajectory,
        subject,
        "untrained",
        untrained,
        (draws,),
        lambda: _untrained(subject, untrained, draws),
    )
    second = _stored(
        trajectory,
        subject,
        f"frequencies{suffix}",
        swapped,
        (draws, snapshots),
        lambda: _swapped(trajectory, subject, swapped, draws // 4, snapshots, reference),
        reference,
    )
    costly = [
        measure
        for measure in expensive
        if fresh and measure.null in _FRESH and measure.uses <= {"final"}
    ]
    few = claims.untrained
    third = _stored(
        trajectory, subject, "expensive", costly, (few,), lambda: _untrained(subject, costly, few)
    )
    structure = [measure for measure in measures if measure.name in STRUCTURE]
    explanation = [measure for measure in measures if measure.name in EXPLANATION]
    fourth = _stored(
        trajectory,
        subject,
        f"renamed{suffix}",
        structure,
        (claims.renamed,),
        lambda: _renamed(trajectory, subject, structure, claims.renamed, reference, shared=True),
        reference,
    )
    fifth = _stored(
        trajectory,
        subject,
        f"relabelled{suffix}",
        explanation,
        (claims.relabelled,),
        lambda: _renamed(
            trajectory, subject, explanation, claims.relabelled, reference, shared=False
        ),
        reference,
    )
    return Nulls(first, second, third, fourth, fifth)


def _stored(
    trajectory: Trajectory,
    subject: Subject,
    name: str,
    measures: Sequence[Measure],
    options: tuple[int, ...],
    make: Callable[[], xr.Dataset],
    reference: ReferenceChoice = "root",
) -> xr.Dataset:
    """Readings of one kind of null, from their file if it has the same key, else made and written.

    Args:
        trajectory: the run.
        subject: the model, task and loss that are measured.
        name: name of the file.
        measures: the measures that are read.
        options: numbers of draws and snapshots, part of the key.
        make: reads the null.
        reference: whose end is the final model.
    """
    if not measures:
        return xr.Dataset()
    file = trajectory.path / "nulls" / f"{name}.nc"
    code, final = code_digest(subject, *measures), History(trajectory).final(reference)
    content = [
        trajectory.hashes(),
        trajectory.record["hash"],
        code,
        None if final is None else final.attrs,
        {measure.name: [dict(measure.options), measure.null] for measure in measures},
        list(options),
        text_digest(("mi_jax.measuring.renaming",), (__file__,)),
    ]
    key = None if code is None else digest(content)
    dataset = cached(file, key)
    if dataset is None:
        dataset = make().assign_attrs(key=key or "")
        write_dataset(file, dataset)
    return dataset


def _untrained(subject: Subject, measures: Sequence[Measure], draws: int) -> xr.Dataset:
    """Readings of freshly initialised networks, dims (draw, ...)."""
    datasets: list[xr.Dataset] = []
    for null in _FRESH:
        having = [measure for measure in measures if measure.null == null]
        if having:
            datasets += _read_fresh(subject, having, draws, pairs=null == "untrained_pair")
    merged = xr.merge(united(datasets), join="exact", compat="no_conflicts").isel(seed=0, drop=True)
    # Variables with a dim "draw" of their own (traces of chains, random subspaces) are evidence for
    # a reading, not compared with a null; their dim would clash with that of the networks.
    return merged.drop_dims("draw", errors="ignore").rename(step="draw")


def _read_fresh(
    subject: Subject, measures: Sequence[Measure], draws: int, *, pairs: bool
) -> list[xr.Dataset]:
    """Readings of freshly initialised networks by each measure, with the draw as their step.

    With ``pairs`` the final model of a network is the next one; otherwise it is the network itself.
    """
    reader, base = Reader(measures, subject.precision), make_context(subject, 0, Reference(), [])
    parts: list[dict[str, np.ndarray]] = []
    for draw in range(draws):
        drawn, other = (
            subject.model.init(jax.random.fold_in(stream(0, "null"), draw + i))
            for i in (0, int(pairs))
        )
        with computing_in(subject.precision):
            params, final = cast(drawn, subject.precision), cast(other, subject.precision)
            context = prepared_context(
                dataclasses.replace(base, reference=Reference(final=final)), measures
            )
        parts.append(
            reader.read(jax.tree.map(lambda x: np.asarray(x)[None], params), None, context)
        )
    joined = {name: np.concatenate([part[name] for part in parts])[None] for name in parts[0]}
    return [
        labelled(
            {name: joined[name] for name in measure.variables},
            measure,
            subject,
            (0,),
            np.arange(draws),
        )
        for measure in measures
    ]


def _has_others(keys: Any) -> Any:
    """Whether as many frequencies are not key as are key."""
    return (~keys).sum() >= keys.sum()


def _swapped(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    draws: int,
    snapshots: int,
    reference: ReferenceChoice,
) -> xr.Dataset:
    """Readings of some snapshots with other frequencies in place of the key ones, dims (seed, step,
    draw, ...).
    """
    indices = np.unique(np.round(np.linspace(0, len(trajectory.steps) - 1, snapshots)).astype(int))
    chosen = [int(step) for step in trajectory.steps[indices]]
    rng, reader = np.random.default_rng(0), Reader(measures, subject.precision)

    def other(keys: np.ndarray) -> jax.Array:
        # Where there are not enough others, the draw is made from all and dropped afterwards.
        others = np.flatnonzero(~keys) if _has_others(keys) else np.arange(len(keys))
        mask = np.zeros(len(keys), bool)
        mask[rng.choice(others, keys.sum(), replace=False)] = True
        return jnp.asarray(mask)

    drawn: list[bool] = []

    def swap(context: Context) -> Context:
        masks = [np.asarray(context.prepared[name]) for name in KEYS if name in context.prepared]
        drawn.append(all(map(_has_others, masks)))
        changed = {
            name: other(np.asarray(context.prepared[name]))
            for name in KEYS
            if name in context.prepared
        }
        return dataclasses.replace(context, prepared={**context.prepared, **changed})

    read = [
        read_trajectory(
            trajectory,
            subject,
            measures,
            chosen=chosen,
            change=swap,
            reader=reader,
            reference=reference,
        )
        for _ in range(draws)
    ]
    datasets: list[xr.Dataset] = []
    for measure in measures:
        by_draw = [
            labelled(
                readings[measure.name].values,
                measure,
                subject,
                trajectory.seeds,
                np.array(chosen),
            )
            for readings in read
        ]
        datasets.append(xr.concat(by_draw, "draw"))
    # ``swap`` was called once per draw and seed.
    possible = xr.DataArray(
        drawn[: len(trajectory.seeds)], {"seed": list(trajectory.seeds)}, ["seed"]
    )
    datasets = [dataset.where(possible) for dataset in datasets]
    return xr.merge(united(datasets), join="exact", compat="no_conflicts").transpose(
        "seed", "step", "draw", ...
    )


def _renamed(
    trajectory: Trajectory,
    subject: Subject,
    measures: Sequence[Measure],
    draws: int,
    reference: ReferenceChoice,
    *,
    shared: bool,
) -> xr.Dataset:
    """Readings of the last snapshot with other names for the elements, dims (seed, draw); see
    ``read_renamed``.
    """
    last = trajectory.stack([int(trajectory.steps[-1])])
    contexts = seed_contexts(trajectory, subject, measures, reference)
    networks = [
        Network(seed, jax.tree.map(lambda x, index=index: x[0, index], last), context)
        for index, (seed, context) in enumerate(zip(trajectory.seeds, contexts, strict=True))
    ]
    with computing_in(subject.precision):
        return read_renamed(RenamedReader(measures, anew=shared), networks, draws, shared=shared)


class Network(NamedTuple):
    """A network whose elements are renamed.

    Attributes:
        seed: label of its seed.
        params: its parameters.
        context: context that it is read with.
    """

    seed: int
    params: Params
    context: Context


def read_renamed(
    program: "RenamedReader", networks: Sequence[Network], draws: int, *, shared: bool
) -> xr.Dataset:
    """Readings of networks with other names for their elements, dims (seed, draw).

    NaN for measures of the key frequencies in seeds where more than half are key.

    Args:
        program: the compiled measures.
        networks: one network per seed.
        draws: number of permutations, from the stream "null".
        shared: whether a permutation is the same in all seeds; otherwise each has its own.
    """
    by_seed: list[dict[str, np.ndarray]] = []
    # Otherwise LAPACK starts threads of its own beside those of XLA.
    with threadpool_limits(1, user_api="blas"):
        for seed, params, context in networks:
            key = jax.random.fold_in(stream(0 if shared else seed, "null"), _RENAMING)
            names = random_names(key, context.inputs.classes, draws)
            by_seed.append(program.read(params, context, names))
    variables = {
        name: (("seed", "draw"), np.stack([read[name] for read in by_seed])) for name in by_seed[0]
    }
    return xr.Dataset(variables, {"seed": [network.seed for network in networks]})


class RenamedReader:
    """Compiled program that reads measures of one network under many names of its elements.

    Args:
        measures: measures without dims of their own.
        anew: whether the final model's key frequencies are chosen anew under each naming.
    """

    def __init__(self, measures: Sequence[Measure], *, anew: bool):
        self._measures = tuple(measures)
        self._anew = anew
        self._program = jax.jit(self._all)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that are read."""
        return self._measures

    def read(self, params: Params, context: Context, names: np.ndarray) -> dict[str, np.ndarray]:
        """Readings by name, [draw]; NaN where more than half of the frequencies are key.

        Args:
            params: of the network.
            context: of its seed, with what the measures prepare.
            names: the permutations, [draw element].
        """
        read = self._program(jax.tree.map(jnp.asarray, params), context, jnp.asarray(names))
        return {
            name: np.asarray(read[name])
            if _possible(measure, context)
            else np.full(len(names), np.nan)
            for measure in self._measures
            for name in measure.variables
        }

    def _all(self, params: Params, context: Context, names: jax.Array) -> dict[str, jax.Array]:
        def _step(one: Names) -> dict[str, jax.Array]:
            seen = renamed(context, one)
            if self._anew:
                seen = prepared_context(seen, self._measures)
            seen = dataclasses.replace(seen, shared=Shared())
            return {
                name: jnp.where(self._few_keys(measure, seen), value, 0)
                for measure in self._measures
                for name, value in measure.read(params, seen).items()
            }

        return jax.lax.map(_step, names)

    def _few_keys(self, measure: Measure, seen: Context) -> jax.Array:
        """Whether a reading makes a claim as far as its key frequencies, chosen anew, are few."""
        masks = [seen.prepared[name] for name in KEYS if self._anew and name in measure.prepare]
        return jnp.array([_has_others(mask) for mask in masks], bool).all()


def _possible(measure: Measure, context: Context) -> bool:
    """Whether at most half of the frequencies that a measure is frozen to are key."""
    masks = [context.prepared[name] for name in KEYS if name in measure.prepare]
    return all(_has_others(np.asarray(mask)) for mask in masks)
