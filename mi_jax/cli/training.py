"""Verbs that train an experiment: run, train, sweep.

Nothing heavy is imported before one of them works.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from mi_jax.cli import histories
from mi_jax.cli.verbs import (
    OVERRIDES,
    Verb,
    add_common_options,
    add_dating,
    add_other_machine,
    dating_rule,
    describe,
    load_experiment,
    print_answer,
    use_cache,
)

_RUN = f"""\
The run is stored in the directory --out. A run that is already there is resumed; a
finished run is not trained again. The other verbs work on this directory.

{OVERRIDES}

Examples:
  mi-jax run grokking
  mi-jax run grokking --seeds 0-4 --task.p 31 --out checkpoints/small
  mi-jax run grokking --dry-run                   what it would take; writes nothing
  mi-jax run grokking --help                      all settings of this experiment
"""

_TRAIN = f"""\
Like run, without measuring and reporting.

{OVERRIDES}

Examples:
  mi-jax train grokking --steps 2000 --out checkpoints/short
  mi-jax train checkpoints/short                  resume an interrupted run
  mi-jax train my_experiment.py                   a file that defines `experiment`
"""

_SWEEP = """\
A setting with several values, separated by commas, is swept; a setting with one value is
changed for all runs. A list of whole numbers such as --seeds counts as one value. Each point of
the grid is a run of its own. A sweep that was stopped is resumed by the same command. A run that
fails is a row with its error; the others are trained, and the exit status is 1.

Examples:
  mi-jax sweep liu_2022 --optimizer.weight-decay 0.1,1 --optimizer.learning-rate 1e-3,1e-2
  mi-jax sweep grokking --task.fraction 0.3,0.4,0.5 --seeds 0-4 --processes 2
"""


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment",
        nargs="?",
        help="name of an experiment that comes with the package, a .py file, or the directory of a "
        "run to resume",
    )
    parser.add_argument(
        "--out", help="directory of the run (default: checkpoints/NAME); an existing run is resumed"
    )
    histories.add_interventions(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print parameters, minutes, memory and disk that training would take, and write "
        "nothing",
    )
    parser.add_argument(
        "--route",
        help="how to compute the model, where it has several ways: plain or table (default: the "
        "one with fewer multiplications)",
    )
    parser.add_argument(
        "--seed-mode",
        choices=("mapped", "vmapped"),
        help="train seeds one after another (mapped) or all at once (vmapped); the last bits "
        "differ (default: mapped on a CPU, vmapped on an accelerator)",
    )
    add_other_machine(parser)
    parser.add_argument(
        "-h",
        "--help",
        action="store_true",
        help="show this text; with an experiment also all of its settings",
    )
    add_common_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_dating(parser)
    _add_training_options(parser)


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.help or options.experiment is None:
        return _help(options)
    # An invalid rule is refused before anything is trained.
    rule = dating_rule(options) if options.verb == "run" else None
    experiment = load_experiment(options.experiment, overrides, options.verb)
    experiment = histories.with_interventions(experiment, options.intervention)
    use_cache(options)
    is_run = os.path.isfile(os.path.join(options.experiment, "run.json"))
    out = options.out or (options.experiment if is_run else None)
    if options.dry_run:
        return _dry_run(experiment, options)
    from mi_jax.cli.progress import measuring_progress, training_progress
    from mi_jax.runs.train import train

    with training_progress(experiment, options.quiet) as watch:
        run = train(
            experiment,
            out,
            watch=watch,
            allow_other_machine=options.allow_other_machine,
            allow_no_lock=options.allow_no_lock,
            route=options.route,
            seed_mode=options.seed_mode,
        )
    if options.verb == "train":
        print_answer(options, describe(run), f"trained: {run.path}")
        return 0
    from mi_jax.cli.reading import show_report

    with measuring_progress(options.quiet) as watch_measures:
        run.measure(watch=watch_measures)
    return show_report(options, run, rule)


def _help(options: argparse.Namespace) -> int:
    """Print the help of the verb, and with an experiment its settings."""
    options.parser.print_help()
    if options.help and options.experiment:
        print()
        load_experiment(options.experiment, ["--help"], options.verb)
    return 0 if options.help else 2


def _dry_run(experiment: Any, options: argparse.Namespace) -> int:
    from mi_jax.runs.cost import cost
    from mi_jax.runs.limits import estimate, refuse_too_large
    from mi_jax.runs.train import check

    needed = estimate(experiment, options.seed_mode)
    costs = cost(experiment, needed)
    lines = []
    for name, value in costs.items():
        number = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        lines.append(f"{name.replace('_', ' ')}\t{number}")
    print_answer(options, costs, "\n".join(lines))
    refuse_too_large(needed, options.out or ".")
    if experiment.interventions:
        check(experiment.parts(options.route, options.seed_mode))
    return 0


def _add_sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment", help="name of an experiment that comes with the package, or a .py file"
    )
    parser.add_argument(
        "--out",
        help="folder of the sweep (default: checkpoints/NAME-sweep); finished runs in it are kept",
    )
    parser.add_argument(
        "--processes",
        type=int,
        help="number of runs at a time, each on a core of its own (default: the number of cores)",
    )
    add_dating(parser)
    add_common_options(parser)


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.cli.overrides import with_swept
    from mi_jax.runs.library import find
    from mi_jax.runs.sweep import sweep

    experiment, axes = with_swept(
        find(options.experiment), overrides, f"mi-jax sweep {options.experiment}"
    )
    cache = use_cache(options)

    def watch(done: int, total: int, name: str) -> None:
        if not options.quiet:
            print(f"{done}/{total} {name}", file=sys.stderr, flush=True)

    summary = sweep(
        experiment,
        axes,
        options.out,
        processes=options.processes,
        rule=dating_rule(options),
        watch=watch,
        source=options.experiment if options.experiment.endswith(".py") else None,
        compile_cache=cache,
    )
    folder = options.out or f"checkpoints/{experiment.name}-sweep"
    rows, table = _rows(summary)
    print_answer(options, rows, "\n".join([*table, f"sweep: {folder}"]))
    failed = [text for text in summary["error"].values.ravel().tolist() if text]
    if failed:
        print(
            f"mi-jax: {len(failed)} of {summary['error'].size} runs failed, the first with: "
            f"{failed[0]} The same command trains them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _rows(summary: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The summary of a sweep, one row per point and seed.

    Returns:
        (rows as JSON, lines of a table with tabs). A date is a pair of bounds in JSON, with null
        for an open side, and stands in words in the table.
    """
    import numpy as np

    from mi_jax.dynamics import date_text, difference_text
    from mi_jax.runs.dates import bounds_json

    points = summary.stack(row=[name for name in summary.coords if name != "bound"])
    names = [*points["row"].to_index().names, *map(str, points.data_vars)]
    rows: list[dict[str, Any]] = []
    lines = ["\t".join(names)]
    for i in range(points.sizes["row"]):
        point = points.isel(row=i)
        row: dict[str, Any] = {name: point[name].item() for name in points["row"].to_index().names}
        cells = [str(value) for value in row.values()]
        for name, value in point.data_vars.items():
            if "bound" in value.dims:
                lower, upper = value.values.tolist()
                row[str(name)] = None if np.isnan(lower) else bounds_json(lower, upper)
                text = difference_text if name == "delay" else date_text
                cells.append(text(lower, upper))
            else:
                number = value.item()
                # JSON has no NaN.
                row[str(name)] = None if number != number else number
                cells.append(f"{number:.6g}" if isinstance(number, float) else str(number))
        rows.append(row)
        lines.append("\t".join(cells))
    return rows, lines


VERBS: Mapping[str, Verb] = {
    "run": Verb(
        "train an experiment, measure it, date what happened, and write a report",
        _RUN,
        _add_run_options,
        _run,
        takes_overrides=True,
        adds_help=False,
    ),
    "train": Verb(
        "train an experiment, or resume its training",
        _TRAIN,
        _add_training_options,
        _run,
        takes_overrides=True,
        adds_help=False,
    ),
    "sweep": Verb(
        "train an experiment at every point of a grid of settings",
        _SWEEP,
        _add_sweep_options,
        _sweep,
        takes_overrides=True,
    ),
}
"""The verbs of this module by name."""
