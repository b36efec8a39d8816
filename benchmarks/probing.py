"""Probes over a whole trajectory: the demo run, one seed, 200 checkpoints, every site at the read
position, ten concepts.

``--json`` keys: ridge_seconds (test, training and control accuracies of every checkpoint, site and
concept, compiled, written), checkpoints, sites, concepts, classes (the most of a concept), fits
(checkpoints x sites x concepts x 2: a control task each); ridge_ms, logistic_ms, mdl_ms, effect_ms:
by checkpoint, from the run's middle on, compiled before. The concepts are the ten with the most
classes.
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


def per_checkpoint(run: Run, one: Measure, count: int) -> float:
    """Milliseconds of reading a checkpoint near the run's middle, compiled before."""
    steps = run.steps[len(run.steps) // 2 :][:count]
    stack = jax.tree.map(
        lambda *x: jax.numpy.stack(x), *[run.params(int(step), seed=run.seeds[0]) for step in steps]
    )
    context, reader = make_context(run.subject, run.seeds[0], Reference(), [one]), Reader([one])
    read = lambda: reader.read(jax.tree.map(lambda x: jax.device_get(x), stack), None, context)  # noqa: E731
    read()
    return 1000 * seconds(read) / count


def chosen(run: Run) -> tuple[str, ...]:
    """The ten concepts with the most classes."""
    known = run.experiment.task.labels(run.evaluation())
    return tuple(sorted(sorted(known, key=lambda name: -known[name].classes)[:_CONCEPTS]))


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Every timing of this page by its key."""
    folder = Path(tempfile.mkdtemp())
    try:
        run = train(dataclasses.replace(find("grokking"), seeds=(0,)), folder / "demo")
        known, names = run.experiment.task.labels(run.evaluation()), chosen(run)
        ridge = measures.probe_accuracy(concepts=names)
        taken = seconds(lambda: run.measure([ridge]))
        read = run.measure([ridge])[ridge.name]
        sizes = read.sizes
        most = max(known[name].classes for name in names)
        fits = 2 * sizes["step"] * sizes["site"] * sizes["concept"]
        say(
            f"ridge at {sizes['step']} checkpoints, {sizes['site']} sites, {sizes['concept']}"
            f" concepts of up to {most} classes, a control task each ({fits:,} fits): {taken:.1f}"
            " s, compiled and written"
        )
        use_compile_cache()
        each = {
            "ridge": (ridge, 4 * _FEW),
            "logistic": (measures.probe_accuracy(kind="logistic", concepts=names), _FEW),
            "mdl": (measures.probe_mdl(concepts=names), 2 * _FEW),
            "effect": (measures.probe_effect(concepts=names), 2 * _FEW),
        }
        found: dict[str, float] = {}
        for name, (one, count) in each.items():
            taken_each = per_checkpoint(run, one, count)
            found[f"{name}_ms"] = taken_each
            say(
                f"{name}: {taken_each:.0f} ms a checkpoint, {taken_each * sizes['step'] / 1000:.0f}"
                " s for all"
            )
    finally:
        shutil.rmtree(folder)
    told: dict[str, float | None] = {
        "checkpoints": sizes["step"],
        "sites": sizes["site"],
        "concepts": sizes["concept"],
        "classes": most,
        "fits": fits,
    }
    return {"ridge_seconds": taken, **told, **found}


if __name__ == "__main__":
    sys.exit(report("probing", measure, __doc__ or ""))
