"""Readings of a run that need several checkpoints at once: modes as lines, joint paths, likeness
across steps and seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from mi_jax import dynamics
from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError, nearest, require
from mi_jax.basics.fourier import by_frequency, fourier_basis, frequencies
from mi_jax.basics.pytrees import take
from mi_jax.contracts import Context, Reference
from mi_jax.decompositions.similarity import barrier, linear_cka, path_losses, procrustes_distance
from mi_jax.measures.evaluation import table_neurons
from mi_jax.measures.fourier import TABLES
from mi_jax.measuring.program import make_context
from mi_jax.runs.run import Run

KINDS = ("cka", "procrustes", "barrier")
EXAMPLES = 512
"""Examples on whose outputs a function's path is drawn."""


def _context(run: Run, seed: int) -> Context:
    return make_context(run.subject, seed, Reference(), [])


def _of_seed(stack: Params, place: int) -> Params:
    """[step ...] of one seed."""
    return jax.tree.map(lambda x: jnp.asarray(x[:, place]), stack)


def mode_lines(run: Run, place: str = "unembedding", *, most: int | None = None) -> xr.Dataset:
    """The singular modes of a table of every seed followed through training: see
    ``dynamics.follow_modes``.

    A mode counts from when it exceeds for good what the untrained table has: the largest singular
        value of the first snapshot.

    Args:
        place: one of ``measures.fourier.TABLES``: "unembedding" is W_L. most: lines; half the
            shorter side by default.

    Returns:
        mode_value, mode_alive, mode_turn (seed, step, mode); mode_noise (seed, step); mode_found,
        mode_birth, mode_death, mode_frozen (seed, mode). Where the task has residues also
        mode_frequency, the one that holds most of the last u, and mode_frequency_share, how much.

    Raises:
        MeasureError: where the model has no such table.
    """
    require(place in TABLES, f"place={place!r} is unknown; {nearest(place, TABLES)}")
    require(most is None or most >= 1, f"most={most}; at least one line is needed")
    table, role = TABLES[place]
    if not getattr(run.subject.model.roles, role):
        raise MeasureError(f"the model has no role '{role}', whose modes would be followed")
    stack = run.stack()
    seeds, parts = _finite(run, stack), []
    for seed in seeds:
        context, position = _context(run, seed), run.seeds.index(seed)
        tables = jax.lax.map(
            lambda params, context=context: table(params, context), _of_seed(stack, position)
        )
        lines = dynamics.follow_modes(
            np.asarray(tables, np.float64), run.steps, most=most, noise="first"
        )
        parts.append(
            _lines_dataset(lines, "residues" in context.ground_truth).assign_coords(step=run.steps)
        )
    return xr.concat(parts, "seed").assign_coords(seed=seeds) if parts else xr.Dataset()


def _finite(run: Run, stack: Params) -> list[int]:
    """The seeds whose parameters are finite at every snapshot."""
    finite = [
        np.isfinite(leaf).all(axis=(0, *range(2, np.ndim(leaf)))) for leaf in jax.tree.leaves(stack)
    ]
    return [
        seed for seed, held in zip(run.seeds, np.logical_and.reduce(finite), strict=True) if held
    ]


def _lines_dataset(lines: dynamics.ModeLines, residues: bool) -> xr.Dataset:
    by_step, by_mode = ("step", "mode"), ("mode",)
    variables: dict[str, Any] = {
        "mode_value": (by_step, lines.values),
        "mode_alive": (by_step, lines.alive),
        "mode_turn": (by_step, lines.turn, {"units": "radians"}),
        "mode_noise": (("step",), lines.noise),
        "mode_found": (by_mode, lines.found),
        **{
            f"mode_{name}": (by_mode, getattr(lines, name), {"units": "steps"})
            for name in ("birth", "death", "frozen")
        },
    }
    if residues:
        p = len(lines.left)
        held = by_frequency(
            jnp.asarray(fourier_basis(p))[1:] @ jnp.asarray(lines.left, jnp.float32), frequencies(p)
        )
        power = np.asarray(jnp.square(held).sum(axis=1))
        variables |= {
            "mode_frequency": (by_mode, 1 + power.argmax(axis=0)),
            "mode_frequency_share": (by_mode, power.max(axis=0)),
        }
    return xr.Dataset(variables)


def weight_path(run: Run, *, modes: int = 5) -> xr.Dataset:
    """The joint principal components of all seeds' parameters over training, beside random walks of
    the same step lengths.

    Seeds that are not finite throughout are left out, here and in ``mode_lines``.

    Returns:
        score, walk_score (seed, step, mode); share, walk_share of the variance (mode);
        walk_likeness (mode), the squared correlation of both scores: near 1 the figure is what any
        walk draws.
    """
    require(modes >= 1, f"modes={modes}; at least one component is needed")
    stack = run.stack()
    seeds = _finite(run, stack)
    places, products = (
        [run.seeds.index(seed) for seed in seeds],
        np.zeros((len(seeds) * len(run.steps),) * 2),
    )
    for leaf in jax.tree.leaves(stack):
        block = (
            np.moveaxis(np.asarray(leaf)[:, places], 1, 0)
            .astype(np.float64)
            .reshape(len(products), -1)
        )
        products += block @ block.T
    return _path_dataset(run, seeds, products, modes)


def function_path(run: Run, *, modes: int = 5, examples: int = EXAMPLES) -> xr.Dataset:
    """The same of the outputs, each example's centred over the classes, on the first examples of
    every split in turn.

    The first seed's examples are taken for all.
    """
    require(
        modes >= 1 and examples >= 1,
        f"modes={modes}, examples={examples}; at least one of each is needed",
    )
    stack, context = run.stack(), _context(run, run.seeds[0])
    seeds = _finite(run, stack)
    splits = [context.batches[name].inputs for name in sorted(context.batches)]
    share = max(1, examples // len(splits))
    inputs = jnp.concatenate([jnp.asarray(one[:share]) for one in splits])

    def outputs(params: Params) -> jax.Array:
        found = context.model.apply(params, inputs, positions=context.read)
        return (found - found.mean(axis=-1, keepdims=True)).ravel()

    draw = jax.jit(lambda stack: jax.lax.map(outputs, stack))
    parts = [np.asarray(draw(_of_seed(stack, run.seeds.index(seed))), np.float64) for seed in seeds]
    rows = np.concatenate(parts) if parts else np.zeros((0, 1))
    return _path_dataset(run, seeds, rows @ rows.T, modes)


def _path_dataset(run: Run, seeds: list[int], products: np.ndarray, modes: int) -> xr.Dataset:
    if not seeds:
        return xr.Dataset()
    path, walk = (
        dynamics.path_of_products(products, len(seeds), modes),
        dynamics.walk_like(products, len(seeds), modes),
    )
    return xr.Dataset(
        {
            "score": (("seed", "step", "mode"), path.scores),
            "share": (("mode",), path.shares),
            "walk_score": (("seed", "step", "mode"), walk.scores),
            "walk_share": (("mode",), walk.shares),
            "walk_likeness": (("mode",), dynamics.likeness(path, walk)),
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
    """Likeness of every pair of checkpoints, of one seed or of two: dims (step, step_other).

    Args:
        kind: "cka", "procrustes" (of the neurons over all pairs) or "barrier" (of the loss on the
            straight line between them).
        seed, other_seed: the first by default; the same.
        steps: snapshots; all by default, which for barriers is long.
        split: whose loss, for barriers.
    """
    require(kind in KINDS, f"kind={kind!r} is unknown; {nearest(kind, KINDS)}")
    seed = run.seeds[0] if seed is None else seed
    other_seed = seed if other_seed is None else other_seed
    for one in (seed, other_seed):
        require(one in run.seeds, f"the run has no seed {one}; its seeds are {list(run.seeds)}")
    chosen = run.steps if steps is None else np.asarray(steps)
    require(len(chosen) > 0, "steps is empty; leave it out for all snapshots")
    stack, context = run.stack([int(step) for step in chosen]), _context(run, seed)
    here, there = (_of_seed(stack, run.seeds.index(one)) for one in (seed, other_seed))
    compare = _barrier(context, split) if kind == "barrier" else _representation(context, kind)
    made, others = jax.lax.map(compare.made, here), jax.lax.map(compare.made, there)
    pair = jax.jit(lambda one, others: jax.lax.map(lambda other: compare.pair(one, other), others))
    values = np.stack([np.asarray(pair(take(made, i), others)) for i in range(len(chosen))])
    told = {"seed": seed, "other_seed": other_seed} | (
        {"split": split} if kind == "barrier" else {}
    )
    return xr.DataArray(
        values,
        {"step": chosen, "step_other": chosen},
        ("step", "step_other"),
        name=kind,
        attrs=told,
    )


class _Compare(NamedTuple):
    """What is made of each checkpoint, and how two of these are compared."""

    made: Callable[[Params], Any]
    pair: Callable[[Any, Any], jax.Array]


def _representation(context: Context, kind: str) -> _Compare:
    if context.model.roles.neurons is None or "table" not in context.ground_truth:
        raise MeasureError(
            f"{kind} compares neurons over all pairs: it needs the role 'neurons' and the concept"
            " 'table'"
        )

    def activations(params: Params) -> jax.Array:
        table = table_neurons(params, context)
        return table.reshape(-1, table.shape[-1])

    return _Compare(activations, linear_cka if kind == "cka" else procrustes_distance)


def _barrier(context: Context, split: str) -> _Compare:
    return _Compare(
        lambda params: params, lambda one, other: barrier(path_losses(one, other, context, split))
    )
