"""Probes over a whole trajectory: the demo run with one seed, 200 checkpoints, every site at the
read position, and the ten concepts with the most classes.

Keys of ``--json``:
    ridge_seconds: seconds for test, training and control accuracies of every checkpoint, site and
        concept, compiled and written.
    checkpoints, sites, concepts: their numbers.
    classes: largest number of classes of a concept.
    fits: number of fits, checkpoints x sites x concepts x 2 (each with a control task).
    ridge_ms, logistic_ms, mdl_ms, effect_ms: milliseconds per checkpoint, from the middle of the
        run on, without compilation.
"""

import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

from benchmarks.timing import report, seconds, use_compile_cache
from mi_jax import Run, measures, train
from mi_jax.contracts import Measure, Reference
from mi_jax.measuring.program import Reader, make_context
from mi_jax.runs.library import find

_FEW = 2
_CONCEPTS = 10


def per_checkpoint(run: Run, probe: Measure, count: int) -> float:
    """Milliseconds per checkpoint, over ``count`` from the middle of the run, compiled before."""
    steps = run.steps[len(run.steps) // 2 :][:count]
    stack = jax.tree.map(
        lambda *x: jax.numpy.stack(x), *[run.params(int(step), seed=run.seeds[0]) for step in steps]
    )
    context, reader = make_context(run.subject, run.seeds[0], Reference(), [probe]), Reader([probe])
    read = lambda: reader.read(jax.tree.map(lambda x: jax.device_get(x), stack), None, context)  # noqa: E731
    read()
    return 1000 * seconds(read) / count


def chosen(run: Run) -> tuple[str, ...]:
    """The ten concepts with the most classes."""
    labels = run.experiment.task.labels(run.evaluation())
    return tuple(sorted(sorted(labels, key=lambda name: -labels[name].classes)[:_CONCEPTS]))


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    folder = Path(tempfile.mkdtemp())
    try:
        run = train(dataclasses.replace(find("grokking"), seeds=(0,)), folder / "demo")
        labels, names = run.experiment.task.labels(run.evaluation()), chosen(run)
        ridge = measures.probe_accuracy(concepts=names)
        taken = seconds(lambda: run.measure([ridge]))
        read = run.measure([ridge])[ridge.name]
        sizes = read.sizes
        most = max(labels[name].classes for name in names)
        fits = 2 * sizes["step"] * sizes["site"] * sizes["concept"]
        say(
            f"ridge at {sizes['step']} checkpoints, {sizes['site']} sites, {sizes['concept']}"
            f" concepts of up to {most} classes, each with a control task ({fits:,} fits):"
            f" {taken:.1f} s, compiled and written"
        )
        use_compile_cache()
        each = {
            "ridge": (ridge, 4 * _FEW),
            "logistic": (measures.probe_accuracy(kind="logistic", concepts=names), _FEW),
            "mdl": (measures.probe_mdl(concepts=names), 2 * _FEW),
            "effect": (measures.probe_effect(concepts=names), 2 * _FEW),
        }
        milliseconds: dict[str, float] = {}
        for name, (probe, count) in each.items():
            cost = per_checkpoint(run, probe, count)
            milliseconds[f"{name}_ms"] = cost
            say(
                f"{name}: {cost:.0f} ms per checkpoint, {cost * sizes['step'] / 1000:.0f} s for all"
            )
    finally:
        shutil.rmtree(folder)
    counts: dict[str, float | None] = {
        "checkpoints": sizes["step"],
        "sites": sizes["site"],
        "concepts": sizes["concept"],
        "classes": most,
        "fits": fits,
    }
    return {"ridge_seconds": taken, **counts, **milliseconds}


if __name__ == "__main__":
    sys.exit(report("probing", measure, __doc__ or ""))
