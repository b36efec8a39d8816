"""Reading a trajectory: all default measures against one forward pass over all pairs, and over 200
snapshots of p = 113.

Keys of ``--json``:
    vs_forward: time of all measures of a snapshot except ``APART``, relative to one forward pass by
        the fastest route.
    vs_forward_all: the same with ``APART``.
    seconds_200: seconds for 200 snapshots and all measures, compiled and written.
    megabytes_200: memory above that at the start.

``APART`` are measures with linear algebra of their own (singular values), or with forward passes of
another network (circle_fve: six networks that each see one circle of the embedding;
gradient_symmetricity: gradients of 100 inputs).
"""

import dataclasses
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import (
    PAIRS,
    peak_megabytes,
    report,
    resident_megabytes,
    seconds,
    use_compile_cache,
)
from mi_jax import Run, train
from mi_jax.contracts import Measure, Reference
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.program import BATCH, Reader, make_context
from mi_jax.runs.library import find
from mi_jax.training import every

APART = (
    "singular_values_embedding",
    "singular_values_unembedding",
    "effective_rank_embedding",
    "effective_rank_unembedding",
    "circularity",
    "circle_fve",
    "gradient_symmetricity",
    "mode_frequency_share_unembedding",
    "key_mode_share_unembedding",
    "subspace_angle_unembedding_final",
    "head_norms",
    "head_rank",
)
"""Measures whose cost is listed separately."""


def reading(run: Run, measures: Sequence[Measure]) -> Callable[[], object]:
    """A function that reads a batch of snapshots of the first seed."""
    final = jax.tree.map(jnp.asarray, run.params(int(run.steps[-1]), seed=run.seeds[0]))
    context = make_context(
        run.subject, run.seeds[0], Reference(initial=final, final=final), measures
    )
    stack = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], BATCH, axis=0), final)
    reader = Reader(measures)
    return lambda: reader.read(stack, None, context)


def forward(run: Run) -> Callable[[], object]:
    """A function that makes one forward pass over all pairs for each snapshot of a batch, by the
    fastest route.
    """
    subject = run.subject
    evaluation = run.evaluation(run.seeds[0])
    inputs = jnp.concatenate([jnp.asarray(batch.inputs) for batch in evaluation.batches.values()])
    params = jax.tree.map(
        lambda x: jnp.repeat(jnp.asarray(x)[None], BATCH, axis=0),
        run.params(int(run.steps[-1]), seed=run.seeds[0]),
    )
    program = jax.jit(
        lambda stack: jax.lax.map(
            lambda params: subject.model.apply(params, inputs, positions=subject.task.read).sum(),
            stack,
        )
    )
    return lambda: jax.block_until_ready(program(params))


def _median(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds per snapshot; the calls alternate."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(PAIRS):
        for name, run in runs.items():
            taken[name].append(1000 * seconds(run) / BATCH)
    return {name: statistics.median(times) for name, times in taken.items()}


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    use_compile_cache()
    folder = tempfile.mkdtemp()
    try:
        run = train(dataclasses.replace(find("nanda_2023"), steps=199, schedule=every(1)), folder)
        start = resident_megabytes()
        whole = seconds(run.measure)
        memory = peak_megabytes() - start
        say(
            f"{len(run.steps)} snapshots of p = 113, all measures, compiled and written:"
            f" {whole:.1f} s, {memory:,.0f} MB more"
        )
        chosen, _ = choose(None, run.subject)
        shared = [measure for measure in chosen if measure.name not in APART]
        each = _median(
            {"forward": forward(run), "all": reading(run, chosen), "shared": reading(run, shared)}
        )
        say(
            f"one forward pass over the table: {each['forward']:.1f} ms; all measures of a"
            f" snapshot: {each['all']:.1f} ms"
        )
        say(f"all but {', '.join(APART)}: {each['shared']:.1f} ms")
        for name, cost in sorted(shares(run, chosen).items(), key=lambda item: -item[1]):
            say(f"  {name}: {cost:.1f} ms alone, {cost / each['forward']:.2f} forward passes")
    finally:
        shutil.rmtree(folder)
    return {
        "vs_forward": each["shared"] / each["forward"],
        "vs_forward_all": each["all"] / each["forward"],
        "seconds_200": whole,
        "megabytes_200": memory,
    }


def shares(run: Run, chosen: Sequence[Measure]) -> dict[str, float]:
    """Milliseconds per snapshot that each measure costs alone, its forward pass included."""
    costs: dict[str, float] = {}
    for measure in chosen:
        read = reading(run, [measure])
        read()  # compiles
        costs[measure.name] = min(1000 * seconds(read) / BATCH for _ in range(2))
    return costs


if __name__ == "__main__":
    sys.exit(report("measuring", measure, __doc__ or ""))
