"""Readings of a run that need several checkpoints at once: modes as lines, joint paths, likeness
of checkpoints across steps and seeds.

Seeds with parameters that are not finite at some snapshot are left out of modes and paths.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from mi_jax import dynamics
from mi_jax.basics.dims import Params
from mi_jax.basics.errors import ConfigError, MeasureError, nearest, require
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.basics.pytrees import take
from mi_jax.contracts import Context, Reference
from mi_jax.decompositions.similarity import barrier, linear_cka, path_losses, procrustes_distance
from mi_jax.dynamics.levels import BOUNDS
from mi_jax.measures.evaluation import table_neurons
from mi_jax.measures.fourier import TABLES
from mi_jax.measuring.history import History
from mi_jax.measuring.program import make_context
from mi_jax.runs.run import Run
from mi_jax.training.trajectory import Trajectory

KINDS = ("cka", "procrustes", "barrier")
"""The kinds of likeness that ``likeness_matrix`` computes."""
EXAMPLES = 512
"""The default number of examples whose outputs ``function_path`` reads."""


def _context(run: Run, seed: int) -> Context:
    return make_context(run.subject, seed, Reference(), [])


def _of_seed(stack: Params, row: int) -> Params:
    """Select one seed of parameters [step seed ...], giving [step ...]."""
    return jax.tree.map(lambda x: jnp.asarray(x[:, row]), stack)


def mode_lines(
    run: Run,
    place: str = "unembedding",
    *,
    most: int | None = None,
    stack: Params | None = None,
) -> xr.Dataset:
    """Follow the singular modes of a table of every seed through training.

    See ``dynamics.follow_modes`` for how modes are followed. A mode counts as alive while its value
    exceeds what the untrained table has: the largest singular value of the table at step 0, which
    forks and zooms have from the run that they were forked from. The modes of forks and zooms are
    followed from the beginning of their history on, through the snapshots of the runs that they
    were forked from.

    Args:
        run: the run to read.
        place: a table of ``measures.fourier.TABLES``, such as "embedding" (W_E) or "unembedding"
            (W_L = W_out W_U).
        most: the number of lines; half the shorter side of the table by default.
        stack: the parameters of all snapshots of the run (``run.stack()``), if they were read
            already.

    Returns:
        mode_value, mode_alive (seed, step, mode): the singular value, and whether it counts.
        mode_turn (seed, step, mode): the angle between snapshots, in radians.
        mode_noise (seed, step): the value that a mode must exceed.
        mode_found (seed, mode): whether the mode is alive for long enough.
        mode_birth, mode_death, mode_frozen (seed, mode, bound): dates in steps; see
        ``dynamics.ModeLines``. Their attr ``reference_step`` is the step of the last snapshot, by
        whose modes the lines are ordered.
        mode_frequency, mode_frequency_share (seed, mode), only if the task has residues: the
        frequency that holds most of the last left vector, and the share that it holds.

    Raises:
        ConfigError: for an unknown table, or less than one line.
        MeasureError: if the model has no such table.

    Example:
        lines = mi_jax.across.mode_lines(run, "embedding", most=10)
        mi_jax.plots.mode_curves(lines, seed=0)
    """
    require(place in TABLES, f"There is no table place={place!r}; {nearest(place, TABLES)}")
    if most is not None and most < 1:
        raise ConfigError(f"most={most} is too small. Ask for at least one line.")
    table, role = TABLES[place]
    if not getattr(run.subject.model.roles, role):
        raise MeasureError(
            f"Cannot follow modes of the {place}: the model has no role '{role}'. Choose another"
            " place."
        )
    stack = run.stack() if stack is None else stack
    by_seed: dict[int, xr.Dataset] = {}
    for trajectory in run.trajectories:
        own = jax.tree.map(lambda x, seeds=trajectory.seeds: _rows(x, run.seeds, seeds), stack)
        steps, whole = _with_earlier(trajectory, own)
        for seed in _finite(trajectory.seeds, whole):
            context = _context(run, seed)
            tables = np.asarray(
                jax.lax.map(
                    lambda params, context=context: table(params, context),
                    _of_seed(whole, trajectory.seeds.index(seed)),
                ),
                np.float64,
            )
            noise: Any = "first"
            if len(tables) > len(steps):
                noise = float(np.linalg.svd(tables[0], full_matrices=False)[1][0])
            lines = dynamics.follow_modes(tables[-len(steps) :], steps, most=most, noise=noise)
            dataset = _lines_dataset(lines, "residues" in context.ground_truth, int(steps[-1]))
            by_seed[seed] = dataset.assign_coords(step=steps).sel(step=run.steps)
    seeds = [seed for seed in run.seeds if seed in by_seed]
    if not seeds:
        return xr.Dataset()
    return xr.concat([by_seed[seed] for seed in seeds], "seed").assign_coords(seed=seeds)


def _rows(x: np.ndarray, seeds: Sequence[int], chosen: Sequence[int]) -> np.ndarray:
    """Some seeds of an array [step seed ...]."""
    return x if tuple(seeds) == tuple(chosen) else x[:, [seeds.index(seed) for seed in chosen]]


def _with_earlier(trajectory: Trajectory, own: Params) -> tuple[np.ndarray, Params]:
    """The parameters of a run from the beginning of its history on.

    Args:
        trajectory: one directory of a run.
        own: the parameters of all its snapshots, [step seed ...].

    Returns:
        The steps of the history's snapshots, and their parameters [step seed ...]. One more is in
        front where the history does not begin at step 0, whose snapshot a fork keeps: the
        parameters of step 0. They are part of the same array, so that one program reads all tables:
        a loop of one step would be compiled to other bits.
    """
    if trajectory.parent is None:
        return trajectory.steps, own
    seeds, steps, parts = trajectory.seeds, [trajectory.steps], [own]
    for ancestor, earlier in reversed(History(trajectory).earlier()):
        stack = ancestor.stack(earlier.tolist())
        steps.insert(0, earlier)
        parts.insert(0, jax.tree.map(lambda x, of=ancestor.seeds: _rows(x, of, seeds), stack))
    if steps[0][0] > 0:
        parts.insert(0, jax.tree.map(lambda x: x[None], trajectory.initial()))
    return np.concatenate(steps), jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _finite(seeds: Sequence[int], stack: Params) -> list[int]:
    """Select the seeds whose parameters [step seed ...] are finite at every snapshot."""
    by_leaf = [
        np.isfinite(leaf).all(axis=(0, *range(2, np.ndim(leaf)))) for leaf in jax.tree.leaves(stack)
    ]
    finite = np.logical_and.reduce(by_leaf)
    return [seed for seed, is_finite in zip(seeds, finite, strict=True) if is_finite]


def _lines_dataset(lines: dynamics.ModeLines, residues: bool, last: int) -> xr.Dataset:
    by_step, by_mode = ("step", "mode"), ("mode",)
    date = {"units": "steps", "reference_step": last}
    variables: dict[str, Any] = {
        "mode_value": (by_step, lines.values),
        "mode_alive": (by_step, lines.alive),
        "mode_turn": (by_step, lines.turn, {"units": "radians"}),
        "mode_noise": (("step",), lines.noise),
        "mode_found": (by_mode, lines.found),
        **{
            f"mode_{name}": (("mode", "bound"), getattr(lines, name), date)
            for name in ("birth", "death", "frozen")
        },
    }
    if residues:
        p = len(lines.left)
        # Without the first row of the basis, the constant, which has no frequency.
        components = by_frequency(
            jnp.asarray(fourier_basis(p))[1:] @ jnp.asarray(lines.left, jnp.float32), frequencies(p)
        )
        power = np.asarray(jnp.square(components).sum(axis=1))
        variables |= {
            "mode_frequency": (by_mode, 1 + power.argmax(axis=0)),
            "mode_frequency_share": (by_mode, power.max(axis=0)),
        }
    return xr.Dataset(variables, {"bound": list(BOUNDS)})


def weight_path(run: Run, *, modes: int = 5, stack: Params | None = None) -> xr.Dataset:
    """Compute the joint principal components of all seeds' parameters over training.

    A random walk with the same step lengths is drawn beside them, since any smooth walk in many
    dimensions has a few large components.

    Args:
        run: the run to read.
        modes: the number of components.
        stack: the parameters of all snapshots (``run.stack()``), if they were read already.

    Returns:
        score, walk_score (seed, step, mode): the path, and that of the random walk.
        share, walk_share (mode): the share of the variance.
        walk_likeness (seed, mode): the squared correlation of each seed's own components with
        those of a walk with its step lengths; near 1 the path looks like that of any walk.

    Raises:
        ConfigError: for less than one component.

    Example:
        mi_jax.plots.path_panels(mi_jax.across.weight_path(run))
    """
    require(modes >= 1, f"modes={modes} is too small. Ask for at least one component.")
    stack = run.stack() if stack is None else stack
    seeds = _finite(run.seeds, stack)
    rows = [run.seeds.index(seed) for seed in seeds]
    products = np.zeros((len(seeds) * len(run.steps),) * 2)
    # Inner products of all checkpoints, leaf by leaf in float64: the parameters of all checkpoints
    # are never flattened at once.
    for leaf in jax.tree.leaves(stack):
        block = (
            np.moveaxis(np.asarray(leaf)[:, rows], 1, 0)
            .astype(np.float64)
            .reshape(len(products), -1)
        )
        products += block @ block.T
    return _path_dataset(run, seeds, products, modes)


def function_path(run: Run, *, modes: int = 5, examples: int = EXAMPLES) -> xr.Dataset:
    """Compute the joint principal components of all seeds' outputs over training.

    The outputs of each example are centred over the classes. All seeds are read on the examples of
    the first seed: the first ones of every split.

    Args:
        run: the run to read.
        modes: the number of components.
        examples: the number of examples, shared equally among the splits.

    Returns:
        The variables of ``weight_path``.

    Raises:
        ConfigError: for less than one component or example.

    Example:
        mi_jax.plots.path_panels(mi_jax.across.function_path(run, examples=256))
    """
    require(
        modes >= 1 and examples >= 1,
        f"modes={modes}, examples={examples}: too small. Ask for at least one of each.",
    )
    stack, context = run.stack(), _context(run, run.seeds[0])
    seeds = _finite(run.seeds, stack)
    splits = [context.batches[name].inputs for name in sorted(context.batches)]
    share = max(1, examples // len(splits))
    inputs = jnp.concatenate([jnp.asarray(split[:share]) for split in splits])

    def outputs(params: Params) -> jax.Array:
        logits = context.model.apply(params, inputs, positions=context.read)
        return (logits - logits.mean(axis=-1, keepdims=True)).ravel()

    outputs_of_steps = jax.jit(lambda stack: jax.lax.map(outputs, stack))
    by_seed = [
        np.asarray(outputs_of_steps(_of_seed(stack, run.seeds.index(seed))), np.float64)
        for seed in seeds
    ]
    rows = np.concatenate(by_seed) if by_seed else np.zeros((0, 1))
    return _path_dataset(run, seeds, rows @ rows.T, modes)


def _path_dataset(run: Run, seeds: list[int], products: np.ndarray, modes: int) -> xr.Dataset:
    if not seeds:
        return xr.Dataset()
    path = dynamics.path_of_products(products, len(seeds), modes)
    walk = dynamics.walk_like(products, len(seeds), modes)
    return xr.Dataset(
        {
            "score": (("seed", "step", "mode"), path.scores),
            "share": (("mode",), path.shares),
            "walk_score": (("seed", "step", "mode"), walk.scores),
            "walk_share": (("mode",), walk.shares),
            "walk_likeness": (
                ("seed", "mode"),
                # A seed alone may have fewer components than all seeds together.
                dynamics.walk_likeness(products, len(seeds), path.scores.shape[-1]),
            ),
        },
        coords={"seed": seeds, "step": run.steps},
    )


def likeness_matrix(
    run: Run,
    kind: str = "cka",
    *,
    seed: int | None = None,
    other_seed: int | None = None,
    steps: Sequence[int] | None = None,
    split: str = "train",
) -> xr.DataArray:
    """Compare every pair of checkpoints, of one seed or of two.

    Args:
        run: the run to read.
        kind: "cka" (linear CKA of the neurons over all pairs of inputs), "procrustes" (Procrustes
            distance of the same) or "barrier" (how far the loss rises on the straight line between
            the parameters).
        seed: the label of the seed of ``step``; the first by default.
        other_seed: the label of the seed of ``step_other``; ``seed`` by default.
        steps: steps of stored snapshots; all by default, which takes long for barriers.
        split: the split whose loss a barrier is of.

    Returns:
        The likeness, dims (step, step_other). The attrs say which seeds, and for barriers which
        split.

    Raises:
        ConfigError: for an unknown kind or seed, or no steps.
        MeasureError: if the model has no neurons or the task has no table of all pairs, which
            "cka" and "procrustes" need.

    Example:
        mi_jax.across.likeness_matrix(run, "cka", steps=run.steps[::10])
    """
    require(kind in KINDS, f"There is no kind={kind!r} of likeness; {nearest(kind, KINDS)}")
    seed = run.seeds[0] if seed is None else seed
    other_seed = seed if other_seed is None else other_seed
    for label in (seed, other_seed):
        require(
            label in run.seeds, f"The run has no seed {label}; its seeds are {list(run.seeds)}."
        )
    chosen = run.steps if steps is None else np.asarray(steps)
    require(len(chosen) > 0, "steps is empty. Leave it out for all snapshots.")
    stack, context = run.stack([int(step) for step in chosen]), _context(run, seed)
    params, other_params = (_of_seed(stack, run.seeds.index(label)) for label in (seed, other_seed))
    compare = _barrier(context, split) if kind == "barrier" else _representation(context, kind)
    representations = jax.lax.map(compare.representation, params)
    others = jax.lax.map(compare.representation, other_params)
    # One compiled program compares a checkpoint with all others.
    compare_with_all = jax.jit(
        lambda one, others: jax.lax.map(lambda other: compare.pair(one, other), others)
    )
    values = np.stack(
        [np.asarray(compare_with_all(take(representations, i), others)) for i in range(len(chosen))]
    )
    attrs: dict[str, Any] = {"seed": seed, "other_seed": other_seed}
    if kind == "barrier":
        attrs["split"] = split
    return xr.DataArray(
        values,
        {"step": chosen, "step_other": chosen},
        ("step", "step_other"),
        name=kind,
        attrs=attrs,
    )


class _Compare(NamedTuple):
    """A comparison of checkpoints.

    Attributes:
        representation: computes from the parameters of one checkpoint what is compared.
        pair: compares two of these.
    """

    representation: Callable[[Params], Any]
    pair: Callable[[Any, Any], jax.Array]


def _representation(context: Context, kind: str) -> _Compare:
    if context.model.roles.neurons is None or "table" not in context.ground_truth:
        raise MeasureError(
            f"{kind} compares neurons over all pairs of inputs: it needs a model with the role"
            " 'neurons' and a task with the ground truth 'table'. Use kind='barrier' instead."
        )

    def activations(params: Params) -> jax.Array:
        table = table_neurons(params, context)
        return table.reshape(-1, table.shape[-1])

    return _Compare(activations, linear_cka if kind == "cka" else procrustes_distance)


def _barrier(context: Context, split: str) -> _Compare:
    return _Compare(
        lambda params: params, lambda one, other: barrier(path_losses(one, other, context, split))
    )
