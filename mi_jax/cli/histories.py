"""Verbs that train and compare other histories of a run: fork, zoom, compare.

Nothing heavy is imported before one of them works.
"""

import argparse
import ast
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mi_jax.basics.errors import RunError
from mi_jax.cli.verbs import (
    Verb,
    add_common_options,
    add_dating,
    add_other_machine,
    add_run,
    dating_rule,
    describe,
    print_answer,
    use_cache,
)

_FORK = """\
The fork continues from the exact state of the run after --step updates. Without an
intervention it repeats the run bit for bit. A run without stored train states is forked
with a fresh optimizer state, and the command says so.

Examples:
  mi-jax fork checkpoints/grokking --step 400
  mi-jax fork checkpoints/grokking --step 400 \\
    --intervention 'Change(field="optimizer.weight_decay", value=0.3, start=400)'
"""

_ZOOM = """\
The steps around the given one are trained again, bit for bit, and more snapshots of them
are kept. The result is a run that can be measured like any other.

Examples:
  mi-jax zoom checkpoints/grokking --around 700
  mi-jax zoom checkpoints/grokking --around 700 --every 5 --width 200
"""

_COMPARE = """\
Losses, measures and the distance between weights, at the snapshots of the run and of
its forks. The table is of the last step at which all of them have a snapshot. Measures
that are not stored yet are read and stored in each run. Below it stand the median dates
of each history, and the median of how much later each comes than in the parent, paired by
seed; seeds that have not got there are part of all medians.

Examples:
  mi-jax compare checkpoints/grokking checkpoints/grokking-fork-400
  mi-jax compare checkpoints/grokking fork_a fork_b --measures test_loss,gini_unembedding
"""


@functools.cache
def _intervention_help() -> str:
    """Help of ``--intervention``, which names every registered intervention.

    The names are read from the source of the registry, since importing it would import jax.
    """
    source = (Path(__file__).parents[1] / "interventions" / "__init__.py").read_text("utf-8")
    [registry] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict)
        if "INTERVENTIONS" in ast.dump(node)
    ]
    *names, last = [ast.unparse(value) for value in registry.values]
    return (
        "a change to training, written as a call with literal arguments, which is parsed and never"
        " executed, such as 'Freeze(\"unembed.*\")'; may be repeated (default: none)."
        f" {', '.join(names)} and {last} are described in mi_jax.interventions"
    )


def add_interventions(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes training."""
    parser.add_argument(
        "--intervention", action="append", default=[], metavar="CALL", help=_intervention_help()
    )


def parse_interventions(texts: Sequence[str]) -> tuple[Any, ...]:
    """Parse interventions from the command line; the text is never executed.

    Raises:
        ConfigError: for a text that is not a call of an intervention.
    """
    from mi_jax.interventions import INTERVENTIONS
    from mi_jax.interventions.parsing import parse

    return tuple(parse(text, INTERVENTIONS) for text in texts)


def with_interventions(experiment: Any, texts: Sequence[str]) -> Any:
    """Add interventions to those of an experiment."""
    if not texts:
        return experiment
    interventions = (*experiment.interventions, *parse_interventions(texts))
    return replace(experiment, interventions=interventions)


def _add_fork_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--step",
        type=int,
        required=True,
        help="step to fork from: any step that the run has reached",
    )
    add_interventions(parser)
    parser.add_argument(
        "--steps", type=int, help="step to train to (default: the last step of the run)"
    )
    parser.add_argument(
        "--out",
        help="directory of the fork (default: RUN-fork-STEP); an existing fork is resumed",
    )
    add_other_machine(parser)
    add_common_options(parser)


def _fork(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.cli.progress import training_progress
    from mi_jax.runs.fork import fork
    from mi_jax.runs.run import open_run

    use_cache(options)
    interventions = parse_interventions(options.intervention)
    parent = open_run(options.run)
    with training_progress(parent.experiment, options.quiet) as watch:
        run = fork(
            parent,
            step=options.step,
            interventions=interventions,
            steps=options.steps,
            out=options.out,
            watch=watch,
            allow_other_machine=options.allow_other_machine,
            allow_no_lock=options.allow_no_lock,
        )
    note = ""
    if run.record["parent"]["state"] != "exact":
        note = ", with a fresh optimizer state: the run holds no train states"
    print_answer(options, describe(run), f"forked at step {options.step}{note}: {run.path}")
    return 0


def _add_zoom_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--around", type=int, required=True, help="step in the middle")
    parser.add_argument(
        "--every", type=int, default=1, help="steps from one snapshot to the next (default: 1)"
    )
    parser.add_argument(
        "--width", type=int, help="steps to either side (default: 64 times --every)"
    )
    parser.add_argument("--out", help="directory of the new run (default: RUN-zoom-STEP)")
    add_other_machine(parser)
    add_common_options(parser)


def _zoom(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.cli.progress import training_progress
    from mi_jax.runs.fork import zoom
    from mi_jax.runs.run import open_run

    use_cache(options)
    parent = open_run(options.run)
    with training_progress(parent.experiment, options.quiet) as watch:
        run = zoom(
            parent,
            around=options.around,
            every=options.every,
            width=options.width,
            out=options.out,
            watch=watch,
            allow_other_machine=options.allow_other_machine,
            allow_no_lock=options.allow_no_lock,
        )
    steps = f"{len(run.steps)} snapshots from step {run.steps[0]} to {run.steps[-1]}"
    print_answer(options, describe(run), f"zoomed: {steps}: {run.path}")
    return 0


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="directory of the parent run")
    parser.add_argument("forks", nargs="+", metavar="FORK", help="directories of its forks")
    parser.add_argument(
        "--measures",
        help="names, separated by commas; see mi-jax list measures (default: losses and "
        "accuracies)",
    )
    parser.add_argument(
        "--out", help="folder for comparison.nc, .png and .svg (default: RUN-compare)"
    )
    add_dating(parser)
    add_common_options(parser)


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax import plots
    from mi_jax.basics.calls import split_calls
    from mi_jax.cli.progress import measuring_progress
    from mi_jax.measuring.files import write_dataset
    from mi_jax.runs.compare import compare, shifts_json
    from mi_jax.runs.dates import dates_json

    use_cache(options)
    rule = dating_rule(options)
    measures = None if options.measures is None else split_calls(options.measures)
    with measuring_progress(options.quiet) as watch:
        comparison = compare(options.run, options.forks, measures=measures, rule=rule, watch=watch)
    parent = Path(options.run).resolve()
    folder = Path(options.out) if options.out else parent.with_name(f"{parent.name}-compare")
    plots.save(comparison.figure, folder, "comparison")
    dates = comparison.dates
    write_dataset(
        folder / "comparison.nc", comparison.dataset.merge(dates).assign_attrs(dates.attrs)
    )
    names = [str(name) for name in comparison.dataset.data_vars if name != "loss"]
    step = comparison.dataset.attrs.get("common_step")
    if step is None:
        raise RunError(
            f"{options.run} and {', '.join(options.forks)} have no snapshot of one step, so no"
            f" values can stand side by side. {folder / 'comparison.nc'} holds each history. Zoom"
            " the run around a step of the forks to compare there."
        )
    ends = _medians(comparison.dataset, names, step)
    rows = ["\t".join([f"at step {step}, median over seeds", *names])]
    if comparison.dataset.attrs.get("left_out"):
        print(comparison.dataset.attrs["left_out"], file=sys.stderr)
    for label, end in ends.items():
        cells = ["" if value is None else f"{value:.4g}" for value in end.values()]
        rows.append("\t".join([label, *cells]))
    answer = {
        "comparison": str(folder / "comparison.nc"),
        "figure": str(folder / "comparison.png"),
        "step": step,
        "ends": ends,
        "dates": {
            label: dates_json(dates.sel(condition=label)) for label in (ends if dates else ())
        },
        "shifts": shifts_json(dates),
        "rule": dict(dates.attrs),
    }
    rows += _date_rows(dates)
    print_answer(options, answer, "\n".join([*rows, f"compared: {folder / 'comparison.png'}"]))
    return 0


def _date_rows(dates: Any) -> list[str]:
    """The median date of each history, and how much later than in the parent it comes, paired by
    seed; one line each.
    """
    from mi_jax.dynamics import DATES, median_text

    rows: list[str] = []
    names = [name for name in DATES if name in dates]
    if names:
        rows.append("\t".join(["median over seeds [interval]", *names]))
    for label in dates["condition"].values if names else ():
        of_history = dates.sel(condition=label)
        rows.append("\t".join([str(label), *(median_text(of_history[name]) for name in names)]))
    for label in dates["condition"].values[1:] if names else ():
        shifts = [dates[f"{name}_shift"].sel(condition=label) for name in names]
        cells = [median_text(shift, differences=True) for shift in shifts]
        rows.append("\t".join([f"{label} less parent, steps, paired by seed", *cells]))
    return rows


def _medians(dataset: Any, names: Sequence[str], step: int) -> dict[str, dict[str, float | None]]:
    """Median over seeds of each history at one step; None where it is not finite."""
    import numpy as np

    at_step = dataset.sel(step=step)
    medians: dict[str, dict[str, float | None]] = {}
    for label in dataset["condition"].values:
        values = {name: float(np.median(at_step[name].sel(condition=label))) for name in names}
        medians[str(label)] = {
            name: value if np.isfinite(value) else None for name, value in values.items()
        }
    return medians


VERBS: Mapping[str, Verb] = {
    "fork": Verb(
        "train another history of a run from one of its steps, with or without a change",
        _FORK,
        _add_fork_options,
        _fork,
    ),
    "zoom": Verb(
        "keep more snapshots of a run around a step, bit for bit on its trajectory",
        _ZOOM,
        _add_zoom_options,
        _zoom,
    ),
    "compare": Verb(
        "put a run and its forks into one dataset and one figure",
        _COMPARE,
        _add_compare_options,
        _compare,
    ),
}
"""The verbs of this module by name."""
