"""A run as users hold it: parameters by step and seed, losses, exact train states, readings."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Int

from mi_jax.basics import modules
from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, NotAllowedError, RunError, nearest, require, whole
from mi_jax.basics.files import replacing
from mi_jax.basics.precision import computing_in
from mi_jax.basics.pytrees import dotted, take
from mi_jax.basics.records import differences, digest
from mi_jax.basics.streams import stream
from mi_jax.contracts import PLAIN, Batch, Evaluation, Measure, Reference, Subject, Taps
from mi_jax.landscape import split_loss_of
from mi_jax.measuring import nulls
from mi_jax.measuring.choosing import Chosen, Skipped, choose
from mi_jax.measuring.history import OWN_SUFFIX, History, ReferenceChoice
from mi_jax.measuring.program import Watch as MeasureWatch
from mi_jax.measuring.program import make_context
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.measuring.stored import (
    EARLIER,
    LEFT_OUT,
    measure_trajectory,
    read_steps,
    stored_measures,
)
from mi_jax.runs import replay
from mi_jax.runs.experiment import Experiment, stored_experiment
from mi_jax.runs.limits import check_readable
from mi_jax.training.record import identity
from mi_jax.training.state import Mode, TrainState
from mi_jax.training.trajectory import Status, Trajectory

Step = int | np.integer
"""A number of updates."""

Steps = Sequence[Step] | Int[np.ndarray, " step"]
"""Numbers of updates."""

_LONGEST_NAME = 100
"""Characters of a directory's name above which it counts the runs instead of naming them."""


def open_run(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    allow_modules: Sequence[str] = (),
) -> "Run":
    """Open a run, or several runs of one experiment with different seeds as one.

    No code that a run names is imported. A run whose task, model or other part is a class of your
    own gives its parameters, losses and stored readings; what needs the class itself raises
    ``NotAllowedError``, unless the module is imported already or is allowed here by name.

    Args:
        path: the directory of a run, or the directories of several.
        allow_modules: names of modules that may be imported. They are looked for in the current
            folder, then on the Python path, and never in the directory of a run.

    Returns:
        The run. Nothing but ``run.json`` is read until it is asked for.

    Raises:
        ConfigError: for an empty list of paths, or an allowed module that is not there.
        RunError: if there is no run, its format is newer than this version of mi_jax, or the
            runs are not of one experiment, hold different steps, or share a seed.

    Example:
        run = mi_jax.open_run("checkpoints/grokking")
        both = mi_jax.open_run(["checkpoints/seeds_0_1", "checkpoints/seeds_2_3"])
        theirs = mi_jax.open_run("checkpoints/cosine", allow_modules=["cosine"])  # cosine.py
    """
    modules.allow(allow_modules)
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not paths:
        raise ConfigError("open_run was given no path. Give the directory of a run.")
    return Run(tuple(Trajectory(Path(p)) for p in paths))


class Run:
    """A trained, or partly trained, experiment.

    It is returned by ``train``, ``fork``, ``zoom`` and ``open_run``. If it was opened from
    several directories, the seeds of all of them are its seeds.

    Attributes:
        trajectories: the stored trajectory of each directory.

    Example:
        run = mi_jax.open_run("checkpoints/grokking")
        params = run.params(run.steps[-1], seed=0)
        dataset = run.measure(["test_loss", "key_frequencies"])
        run.losses.sel(seed=0)
    """

    def __init__(self, trajectories: tuple[Trajectory, ...]):
        self.trajectories = trajectories
        first, *others = trajectories
        for other in others:
            different = differences(_shared(first), _shared(other))
            if different:
                raise RunError(
                    f"{first.path} and {other.path} are not of one experiment:"
                    f" {'; '.join(different)}. Open them one by one."
                )
            if first.done != other.done or not np.array_equal(first.steps, other.steps):
                raise RunError(
                    f"{first.path} and {other.path} hold different steps. Train both to their end."
                )
        twice = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if twice:
            raise RunError(
                f"Cannot open these runs as one: seeds {sorted(set(twice))} are in more than one of"
                " them. Leave one out."
            )

    @property
    def path(self) -> Path:
        """The directory of the run; of several, the first."""
        return self.trajectories[0].path

    @property
    def record(self) -> dict[str, Any]:
        """The contents of ``run.json``; of several directories, the first."""
        return self.trajectories[0].record

    @property
    def seeds(self) -> tuple[int, ...]:
        """The labels of the seeds."""
        return tuple(seed for trajectory in self.trajectories for seed in trajectory.seeds)

    @property
    def parent(self) -> tuple[Path, int] | None:
        """(directory of the parent, step of the fork); None for a run that is no fork."""
        return self.trajectories[0].parent

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The steps of the stored snapshots, rising."""
        return self.trajectories[0].steps

    @cached_property
    def experiment(self) -> Experiment:
        """The settings that the run was trained with.

        Raises:
            NotAllowedError: if a class of the user is needed and its module is not imported. Arrays
                are readable all the same.
        """
        return stored_experiment(self.record)

    @cached_property
    def subject(self) -> Subject:
        """The model, task, loss and precision that measures read.

        Raises:
            RunError: if this machine cannot hold the examples or the parameters.
        """
        check_readable(self.experiment)
        return self.experiment.subject()

    def params(self, step: Step, seed: int | None = None) -> Params:
        """Read the parameters after ``step`` updates, as a nested dict of NumPy arrays.

        Args:
            step: the step of a stored snapshot; see ``steps``.
            seed: the label of a seed. None: all seeds, as a leading axis of every array; the seed
                itself without that axis if the run has one seed only.

        Returns:
            The parameters, nested by the parts of their dotted names: ``params["embed"]["W_E"]``.

        Raises:
            RunError: for an unknown seed, or a step that is not a snapshot. The message names the
                nearest snapshots; ``state_at`` gives any step.
        """
        if seed is None and len(self.seeds) == 1:
            seed = self.seeds[0]
        if seed is None:
            return take(self.stack([step]), 0)
        trajectory, row = self._find(seed)
        return jax.tree.map(lambda x: x[0, row], trajectory.stack([int(step)]))

    def stack(self, steps: Steps | None = None) -> Params:
        """Read the parameters at several snapshots.

        Args:
            steps: steps of stored snapshots; all by default.

        Returns:
            Nested NumPy arrays with the leading axes [step, seed].

        Raises:
            RunError: for a step that is not a snapshot.
        """
        chosen = None if steps is None else [int(step) for step in steps]
        stacks = [trajectory.stack(chosen) for trajectory in self.trajectories]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *stacks)

    @cached_property
    def losses(self) -> xr.DataArray:
        """The training loss at every step, dims (seed, step), in the units of the loss.

        The loss at step s is that of the parameters after s updates, on the next update's batch.
        The attr ``units`` is missing if the module of a class of the user is not imported.
        """
        values = np.concatenate([trajectory.losses() for trajectory in self.trajectories], axis=1).T
        origin = self.trajectories[0].origin
        coords = {"seed": list(self.seeds), "step": np.arange(origin, origin + values.shape[1])}
        units = ""
        with contextlib.suppress(ConfigError):
            units = self.experiment.loss.units
        return xr.DataArray(
            values, coords, ("seed", "step"), name="loss", attrs={"units": units} if units else {}
        )

    @property
    def status(self) -> dict[int, Status]:
        """By seed, whether it is finished, unfinished, or non-finite since a step."""
        return {
            seed: status
            for trajectory in self.trajectories
            for seed, status in trajectory.status().items()
        }

    def state_at(self, step: Step, *, allow_other_machine: bool = False) -> TrainState:
        """Return the exact train state after ``step`` updates.

        It is read from disk if it is stored, else replayed from the last stored state before.

        Args:
            step: any step that the run has reached.
            allow_other_machine: replay although versions, flags or the number of cores differ from
                those that the run started with, so that the last bits may differ.

        Returns:
            Parameters, optimizer state and step, each with the leading axis [seed].

        Raises:
            ConfigError: for a step that is not a whole number.
            RunError: for a step that the run has not reached, a run without train states, or a
                replay on a machine whose bits may differ.
        """
        step = whole("step", step)
        states = [
            replay.state_at(trajectory, step, allow_other_machine=allow_other_machine)
            for trajectory in self.trajectories
        ]
        if len(states) == 1:
            return states[0]
        # Outside this context JAX would cut float64 states to float32.
        with computing_in(self.experiment.precision):
            return jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves), *states)

    def apply(
        self,
        params: Params,
        inputs: Any,
        *,
        taps: Taps | None = None,
        positions: Sequence[int] | None = None,
    ) -> jax.Array:
        """Compute the outputs of the model, by its plain route.

        Args:
            params: parameters of one seed, such as ``run.params(step, seed)``.
            inputs: examples of the task, [batch position] tokens or [batch feature] floats.
            taps: functions that read or replace the value at a site, by the name of the site.
            positions: positions to compute outputs at; all by default.

        Returns:
            Outputs [batch position class].

        Raises:
            ConfigError: for an unknown site.
        """
        read = None if positions is None else tuple(int(position) for position in positions)
        # A float32 run stays under the caller's own precision: who computes in float64 keeps it.
        wide = self.experiment.precision == "float64"
        with computing_in("float64") if wide else contextlib.nullcontext():
            as_arrays = jax.tree.map(jax.numpy.asarray, params)
            return self.subject.model.along(PLAIN)(
                as_arrays, jax.numpy.asarray(inputs), taps=taps, positions=read
            )

    def evaluation(self, seed: int | None = None) -> Evaluation:
        """Return the fixed examples and the ground truth that the measures of the run read.

        Args:
            seed: the label of a seed, if seeds have examples of their own; the first by default.

        Returns:
            The examples by split, and the facts about the task that hold exactly.

        Raises:
            RunError: for an unknown seed.
        """
        seed = self.seeds[0] if seed is None else seed
        self._find(seed)
        task = self.experiment.task
        return task.evaluation(task.data(seed), stream(seed, "measure"))

    def split_loss(
        self, split: str = "train", seed: int | None = None
    ) -> tuple[Callable[[Params, Batch], Scalar], Batch]:
        """Return the mean loss over a split as a function, and the examples of the split.

        Functions of ``mi_jax.landscape`` take both. They keep a compiled program for each loss
        function, so call this once and reuse the result.

        Args:
            split: a split that the task evaluates, such as "train" or "test".
            seed: the label of a seed, if seeds have examples of their own; the first by default.

        Returns:
            ``(loss, examples)``, where ``loss(params, examples)`` is the mean over examples of the
            loss that the run was trained with.

        Raises:
            ConfigError: for a split that the task does not have.
            RunError: for an unknown seed.

        Example:
            loss, examples = run.split_loss("train")
            loss(run.params(run.steps[-1], seed=0), examples)
        """
        seed = self.seeds[0] if seed is None else seed
        self._find(seed)
        context = make_context(self.subject, seed, Reference(), [])
        if split not in context.batches:
            raise ConfigError(f"The task has no split {split!r}; {nearest(split, context.batches)}")
        split_loss = split_loss_of(context)

        def loss(params: Params, examples: Batch) -> Scalar:
            return split_loss(jax.tree.map(jax.numpy.asarray, params), examples)

        return loss, context.batches[split]._replace(info={})

    def export(self, step: Step, path: str | os.PathLike[str], seed: int | None = None) -> Path:
        """Write the parameters of one seed at a snapshot as an npz, by dotted name.

        ``mi-jax measure`` and ``load_weights`` read such a file.

        Args:
            step: the step of a stored snapshot.
            path: the file to write.
            seed: the label of a seed; may be left out if the run has one seed only.

        Returns:
            The path of the file.

        Raises:
            RunError: if the run has several seeds and none is given, for an unknown seed or a
                step that is not a snapshot, or if the file cannot be written.

        Example:
            run.export(run.steps[-1], "weights.npz", seed=0)
        """
        if seed is None and len(self.seeds) > 1:
            raise RunError(
                f"The run has the seeds {list(self.seeds)}, and one file holds one seed. Say which"
                " to export with seed=."
            )
        params, file = self.params(step, seed), Path(path)
        try:
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, **dotted(params))
        except OSError as error:
            raise RunError(
                f"{file} cannot be written ({error.strerror}). Name a file that can be written."
            ) from error
        return file

    @property
    def measures(self) -> xr.Dataset:
        """All stored readings of the run's snapshots as one dataset, dims (seed, step, ...).

        Readings that do not belong to the code or the weights that are there now are left out, and
        so are, where the run was opened from several directories, those that one of them lacks. The
        attr ``left_out`` of the dataset says which, one sentence a line.
        """
        stored = [stored_measures(trajectory) for trajectory in self.trajectories]
        if not all(EARLIER in dataset.attrs for dataset in stored):
            stored = [
                stored_measures(trajectory, earlier=False) if EARLIER in dataset.attrs else dataset
                for trajectory, dataset in zip(self.trajectories, stored, strict=True)
            ]
        return _by_seed(*_common(stored, [trajectory.path for trajectory in self.trajectories]))

    def measure(
        self,
        measures: Sequence[Chosen] | None = None,
        *,
        reference: ReferenceChoice = "root",
        watch: MeasureWatch = lambda done, total: None,
    ) -> xr.Dataset:
        """Read measures of every snapshot and store them in the run; see ``mi_jax.measure``.

        Args:
            measures: names, Measures or plain functions; all cheap ones by default.
            reference: whose end is the final model of retrospective measures; see
                ``mi_jax.measure``.
            watch: called with (snapshots done, snapshots in all).

        Returns:
            The readings, dims (seed, step, ...).

        Raises:
            MeasureError: for an unknown measure, one that this model or task does not allow, or a
                name that another function has.
        """
        chosen, _ = self.choose(measures, reference=reference)
        return _by_seed(
            [
                measure_trajectory(
                    trajectory,
                    self.subject,
                    chosen,
                    provenance(trajectory.record),
                    watch,
                    reference,
                )
                for trajectory in self.trajectories
            ]
        )

    def choose(
        self,
        measures: Sequence[Chosen] | None = None,
        *,
        reference: ReferenceChoice = "root",
        among: Mapping[str, Measure] = READINGS,
        stored: bool = True,
    ) -> tuple[list[Measure], list[Skipped]]:
        """Choose the measures that this run allows.

        In a fork or a zoom whose root run is missing or not trained to its end, retrospective
        measures are skipped, since they compare with the last snapshot of the root.

        Args:
            measures: names, Measures or plain functions; all of ``among`` by default.
            reference: whose end is the final model; see ``mi_jax.measure``.
            among: measures by name that the default chooses from.
            stored: whether the readings will be stored; see ``measuring.choosing.choose``.

        Returns:
            The measures, and those that were skipped with the reasons.

        Raises:
            ConfigError: for an unknown ``reference``.
            MeasureError: for an unknown measure, or one that cannot be taken.
        """
        require(
            reference in ("root", "own"),
            f"reference={reference!r} is unknown. Choose 'root' (the end of the run at the root of"
            " the history) or 'own' (the end of this run).",
        )
        histories = [History(trajectory) for trajectory in self.trajectories]
        references = frozenset.intersection(*(h.references(reference) for h in histories))
        why = "" if reference == "own" else next((h.no_final for h in histories if h.no_final), "")
        return choose(measures, self.subject, references, among=among, why=why, stored=stored)

    def read(
        self,
        measures: Sequence[Chosen],
        steps: Steps,
        *,
        reference: ReferenceChoice = "root",
    ) -> xr.Dataset:
        """Read measures at chosen snapshots, neither storing nor reusing readings.

        Args:
            measures: names, Measures or plain functions, as for ``mi_jax.measure``.
            steps: steps of stored snapshots.
            reference: whose end is the final model of retrospective measures; see
                ``mi_jax.measure``.

        Returns:
            The readings, dims (seed, step, ...).

        Raises:
            MeasureError: for an unknown measure, or one that this model or task does not allow.
            RunError: for a step that is not a snapshot.
        """
        steps = [int(step) for step in steps]
        chosen, _ = self.choose(measures, reference=reference, stored=False)
        return _by_seed(
            [
                read_steps(trajectory, self.subject, chosen, steps, reference)
                for trajectory in self.trajectories
            ]
        )

    def nulls(
        self, claims: nulls.Draws = nulls.CLAIMS, *, reference: ReferenceChoice = "root"
    ) -> nulls.Nulls:
        """Read the measures where there is nothing to find, for comparison.

        The nulls are freshly initialised networks, other frequencies in place of the key ones, and
        the same networks with other names for the elements; see ``measuring.nulls.Nulls``. Slow
        measures are included if the run has readings of them. Where the run was opened from several
        directories, the untrained networks are those of the first, since all have the same, and the
        other nulls are of every seed.

        Args:
            claims: numbers of draws by which claims are tested.
            reference: whose end is the final model of retrospective measures; see
                ``mi_jax.measure``.
        """
        chosen, _ = self.choose(reference=reference)
        stored = set(self.measures)
        suffixes = {"", OWN_SUFFIX} if reference == "own" else {""}
        names = [
            name
            for name, measure in EXPENSIVE.items()
            if any(
                {f"{each}{suffix}" for each in measure.variables} <= stored for suffix in suffixes
            )
        ]
        expensive, _ = self.choose(names, reference=reference)
        first, *others = self.trajectories
        read = nulls.read_nulls(
            first,
            self.subject,
            chosen,
            expensive=expensive,
            claims=claims,
            reference=reference,
        )
        if not others:
            return read
        rest = [
            nulls.read_nulls(
                trajectory,
                self.subject,
                chosen,
                claims=claims,
                fresh=False,
                reference=reference,
            )
            for trajectory in others
        ]
        by_run = [read, *rest]
        return read._replace(
            frequencies=_by_seed([each.frequencies for each in by_run]),
            renamed=_by_seed([each.renamed for each in by_run]),
            relabelled=_by_seed([each.relabelled for each in by_run]),
        )

    @property
    def departs(self) -> bool:
        """Whether this is a fork that learns something which its parent does not: it has
        interventions of its own, or goes on beyond the parent's last step.
        """
        return any(History(trajectory).departs for trajectory in self.trajectories)

    @property
    def report_path(self) -> Path:
        """The directory of the run's report and figures.

        It is that of the run; of several directories, one of their own beside the first, named
        after all of them, so that no report of a single run is replaced.
        """
        if len(self.trajectories) == 1:
            return self.path
        name = "+".join(trajectory.path.name for trajectory in self.trajectories)
        if len(name) > _LONGEST_NAME:
            name = f"{self.path.name}+{len(self.trajectories) - 1}-{digest(name)[:8]}"
        return self.path.with_name(name)

    @property
    def mode(self) -> Mode:
        """The route and seed mode of training, which decide the last bits of the results."""
        return replay.mode_of(self.record)

    def _find(self, seed: int) -> tuple[Trajectory, int]:
        """Find a seed.

        Returns:
            The trajectory that holds the seed, and the seed's index there.
        """
        for trajectory in self.trajectories:
            if seed in trajectory.seeds:
                return trajectory, trajectory.seeds.index(seed)
        raise RunError(f"The run has no seed {seed}; its seeds are {list(self.seeds)}.")


def provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Select from a run's record what every result states about the run it was read from."""
    return {key: record[key] for key in ("experiment", "hash", "machine")}


def _by_seed(datasets: list[xr.Dataset], left_out: Sequence[str] = ()) -> xr.Dataset:
    """Join the readings of several directories along the seeds.

    Args:
        datasets: readings with the same variables.
        left_out: sentences about readings that are not among them.
    """
    if len(datasets) == 1 or not any(datasets):
        return datasets[0]
    whole = xr.concat(datasets, "seed", join="exact", combine_attrs="override")
    if left_out:
        whole.attrs[LEFT_OUT] = "\n".join(left_out)
    return whole


def _common(
    datasets: list[xr.Dataset], paths: Sequence[Path]
) -> tuple[list[xr.Dataset], list[str]]:
    """Keep the readings that all directories have, and say which directory lacks the others.

    A seed without a reading is no seed whose reading is NaN: it would be dated by another rule.
    """
    sentences = [line for dataset in datasets for line in _lines(dataset.attrs.get(LEFT_OUT))]
    if len(datasets) == 1:
        return datasets, sentences
    names = dict.fromkeys(str(name) for dataset in datasets for name in dataset.data_vars)
    for dataset, path in zip(datasets, paths, strict=True):
        lacking = [name for name in names if name not in dataset]
        if lacking:
            sentences.append(
                f"{', '.join(lacking)} is left out. {path} has no such reading. Measure it there"
                " too."
            )
    shared = [name for name in names if all(name in dataset for dataset in datasets)]
    return [dataset[shared] for dataset in datasets], sentences


def _lines(text: str | None) -> list[str]:
    return text.split("\n") if text else []


def _shared(trajectory: Trajectory) -> dict[str, Any]:
    """Return the settings that runs of one experiment share, and for forks the parent.

    Settings that an older version did not write have their defaults, unless they are a user's whose
    module is not imported.
    """
    try:
        settings = identity(stored_experiment(trajectory.record).to_json())
    except NotAllowedError:
        settings = identity(trajectory.record["experiment"])
    parent = trajectory.record.get("parent")
    if parent is None:
        return settings
    return {**settings, "forked": [parent["hash"], parent["step"]]}


def measure(
    run: Run,
    measures: Sequence[Chosen] | None = None,
    *,
    reference: ReferenceChoice = "root",
    watch: MeasureWatch = lambda done, total: None,
) -> xr.Dataset:
    """Read measures of every snapshot of a run in one compiled program, and store them in the run.

    Readings that are stored already are not computed again, unless the weights or the code that
    they depend on changed: the measure and what it imports, the model, the task and the loss, and
    the versions of jax and numpy. A function whose values cannot be followed (a lambda, a closure,
    a partial, an object) is always read again.

    Args:
        run: the run to read.
        measures: names (see ``mi-jax list measures``), calls with options such as
            ``"sharpness(split='test')"``, Measures, or plain functions ``(params, context) ->
            scalar``. By default all measures that the model and the task allow, without those that
            are slow.
        reference: whose end is the final model of retrospective measures. "root": the last snapshot
            of the run at the root of the history, so that a reading of a fork or a zoom is that of
            its parent at the same step. "own": the last snapshot of this run; the variables then
            have the suffix ``_own``.
        watch: called with (snapshots done, snapshots in all).

    Returns:
        The readings, dims (seed, step, ...); each variable has its own further dims.

    Raises:
        MeasureError: for an unknown measure, two measures of one name, a function with the name of
            a measure of mi_jax or with none (a lambda), or a measure that needs something which
            this model, task or history does not have.

    Example:
        def weight_norm(params, context):
            return sum((x**2).sum() for x in jax.tree.leaves(params)) ** 0.5

        dataset = mi_jax.measure(run, ["test_loss", weight_norm])
        dataset["test_loss"].sel(seed=0).plot(x="step")
    """
    return run.measure(measures, reference=reference, watch=watch)
