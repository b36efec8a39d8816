"""Verbs that read what was trained: measure, report.

Nothing heavy is imported before one of them works.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_jax.basics.errors import ConfigError
from mi_jax.cli.printing import lines_of_readings, print_table
from mi_jax.cli.verbs import (
    OVERRIDES,
    Verb,
    add_common_options,
    add_dating,
    add_run,
    dating_rule,
    load_experiment,
    print_answer,
    refuse_overrides,
    use_cache,
)

_MEASURE = f"""\
For a run, every snapshot is read, the readings are stored in the run, and those of the last
step are printed by seed. Readings that are stored already are not computed again.
For a file of weights, --like names the experiment whose model and task the weights belong to.
A measure with options is written as a call, in quotes; see mi-jax list options.

Only for a file of weights:
{OVERRIDES}

Examples:
  mi-jax measure checkpoints/grokking
  mi-jax measure checkpoints/grokking --measures test_loss,key_frequencies --json
  mi-jax measure checkpoints/grokking --measures "probe_accuracy(kind='logistic'),sharpness"
  mi-jax measure weights.npz --like nanda_2023 --task.p 59 --out readings.nc
"""

_REPORT = """\
Writes figures/ and report.html, one file without links to other files, into the run, and prints
the numbers of each seed. Measure the run first.

A date is the pair of snapshots between which it happened: "between 2,676 and 2,757", "by step
10" where it had happened by the first snapshot, "later than 6,000" where it had not by the last.
With --json, dates holds the two bounds of each seed, of the median and of its interval; null is
an open side. findings holds every claim that was tested: its sentence, the reading that it is
about, its level of evidence (0 observed, 1 beats nulls, 2 replicated, 3 causal, 4 predictive), its
p-value, and whether it is supported at the error rate of the page.

Examples:
  mi-jax report checkpoints/grokking
  mi-jax report checkpoints/grokking --level 0.95 --gap 3 --json
"""


def _add_measure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="RUN|WEIGHTS.npz", help="directory of a run, or a file of weights"
    )
    parser.add_argument(
        "--like",
        metavar="EXPERIMENT",
        help="for weights: name, file or run of the experiment whose model and task they belong to",
    )
    parser.add_argument(
        "--measures",
        help="names, separated by commas; see mi-jax list measures (default: all measures that are "
        "not marked 'when named')",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.nc",
        help="for weights: file to write the readings to (default: none)",
    )
    parser.add_argument(
        "--reference",
        choices=("root", "own"),
        help="for a run: whose last snapshot is the final model of retrospective measures. 'root': "
        "that of the run that a fork or zoom descends from; 'own': that of RUN itself, with "
        "variables named _own (default: root)",
    )
    add_common_options(parser)


def _measure(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.basics.calls import split_calls
    from mi_jax.measuring.merging import last_step

    names = split_calls(options.measures) if options.measures else None
    target = Path(options.target)
    if os.path.isdir(target):
        dataset, skipped = _measure_run(target, names, options, overrides)
        answer: dict[str, Any] = {str(seed): readings for seed, readings in last_step(dataset)}
        lines = [
            line
            for seed, readings in answer.items()
            for line in lines_of_readings(readings, f"{seed}.")
        ]
    elif os.path.isfile(target):
        dataset, skipped = _measure_weights(target, names, options, overrides)
        answer = next(readings for _, readings in last_step(dataset))
        lines = lines_of_readings(answer)
    else:
        raise ConfigError(
            f"There is no run or file {target}. Give the directory of a run or an npz of weights."
        )
    for reason in dict.fromkeys(skip.reason for skip in skipped):
        measures = ", ".join(skip.name for skip in skipped if skip.reason == reason)
        print(f"not read: {measures}: {reason}", file=sys.stderr)
    print_answer(options, answer, "\n".join(lines))
    return 0


def _measure_run(
    path: Path, names: list[str] | None, options: argparse.Namespace, overrides: list[str]
) -> tuple[Any, Any]:
    """Measure a run.

    Returns:
        The dataset, and the measures that were skipped as pairs of a name and a reason.
    """
    for_weights = [f"--{name}" for name in ("like", "out") if getattr(options, name)]
    refuse_overrides([*overrides, *for_weights], "measure of a run")
    use_cache(options)
    from mi_jax.cli.progress import measuring_progress
    from mi_jax.runs.run import open_run

    run, reference = open_run(path), options.reference or "root"
    _, skipped = run.choose(names, reference=reference)
    with measuring_progress(options.quiet) as watch:
        return run.measure(names, reference=reference, watch=watch), skipped


def _measure_weights(
    file: Path, names: list[str] | None, options: argparse.Namespace, overrides: list[str]
) -> tuple[Any, Any]:
    """Measure a file of weights.

    Returns:
        The dataset, and the measures that were skipped as pairs of a name and a reason.
    """
    if options.reference:
        raise ConfigError(
            f"--reference={options.reference} is for a run, and {file} is a file of weights, which"
            " serve as their own final model. Leave it out."
        )
    if not options.like:
        raise ConfigError(
            f"{file} is a file of weights, which does not name its model and task. Name the "
            "experiment that has them with --like."
        )
    experiment = load_experiment(options.like, overrides, "measure")
    use_cache(options)
    from mi_jax.measuring.choosing import choose
    from mi_jax.measuring.files import write_dataset
    from mi_jax.measuring.stored import measure_weights
    from mi_jax.runs.limits import check_readable
    from mi_jax.runs.weights import load_weights
    from mi_jax.training.machine import machine

    check_readable(experiment)
    subject = experiment.subject()
    measures, skipped = choose(names, subject, frozenset({"final"}))
    params, ignored = load_weights(file, subject.model, subject.precision)
    if ignored:
        print(f"arrays that are not parameters, ignored: {', '.join(ignored)}", file=sys.stderr)
    provenance = {
        "experiment": experiment.to_json(),
        "hash": experiment.hash,
        "machine": machine(),
        "weights": file.name,
    }
    dataset = measure_weights(params, subject, measures, provenance)
    if options.out:
        write_dataset(Path(options.out), dataset)
    return dataset, skipped


def _report(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.runs.run import open_run

    return show_report(options, open_run(options.run), dating_rule(options))


def show_report(options: argparse.Namespace, run: Any, rule: Any) -> int:
    """Write the report of a measured run, and print its numbers by seed.

    Args:
        options: of the command line.
        run: the run.
        rule: the rule of its dates.
    """
    from mi_jax.measuring.merging import last_step
    from mi_jax.report.claims import findings_json
    from mi_jax.report.findings import numbers_table
    from mi_jax.report.inputs import as_stored
    from mi_jax.report.study import report
    from mi_jax.runs.dates import dates_json, verdicts_json

    study = report(run, rule=rule)
    if study.dataset.attrs.get("left_out"):
        print(study.dataset.attrs["left_out"], file=sys.stderr)
    rows = numbers_table(study.dataset, study.dates)
    answer = {
        "report": str(study.report),
        "run": str(run.path),
        "seeds": {str(seed): readings for seed, readings in last_step(as_stored(study.dataset))},
        "dates": dates_json(study.dates),
        "verdicts": verdicts_json(study.dates),
        "rule": dict(study.dates.attrs),
        "findings": findings_json(study.claims, study.dataset),
    }
    if options.json or not sys.stdout.isatty():
        text = "\n".join("\t".join([label, *cells]) for label, cells in rows)
        print_answer(options, answer, f"{text}\nreport: {study.report}")
        return 0
    print_table(rows)
    print(f"report: {study.report}")
    return 0


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_dating(parser)
    add_common_options(parser)


VERBS: Mapping[str, Verb] = {
    "measure": Verb(
        "read measures of every snapshot of a run, or of a file of weights",
        _MEASURE,
        _add_measure_options,
        _measure,
        takes_overrides=True,
    ),
    "report": Verb(
        "draw the figures and write the report of a measured run",
        _REPORT,
        _add_report_options,
        _report,
    ),
}
"""The verbs of this module by name."""
