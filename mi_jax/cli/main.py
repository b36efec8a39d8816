"""The command line: mi-jax run | train | sweep | fork | zoom | compare | measure | report |
reproduce | info | verify | list.

This module imports nothing heavy, so that ``--help`` is instant; each verb imports what it needs.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mi_jax.basics.errors import ConfigError, Interrupted, MiJaxError, RunError
from mi_jax.cli import histories
from mi_jax.cli.printing import lines_of, lines_of_readings, print_table

_OVERRIDES = (
    "Settings of the experiment are overridden by name: --task.p 31 --optimizer.learning-rate 1e-2"
    " --seeds 0,1,2 --steps 500. --task.name NAME puts that task's smallest setting in place of the"
    " experiment's first; --model.name, --optimizer.name, --loss.name and --optimizer.filter.name"
    " the defaults of another."
)

_CALLS = (
    "With options, in quotes:"
    " \"probe_accuracy(kind='logistic'),learning_coefficient(parameters='unembed.*')\""
)

_SWEPT = (
    "A setting with several values is swept: --optimizer.weight-decay 0.1,0.3,1"
    " --optimizer.learning-rate 1e-3,1e-2 --seeds 0-4. Those with one value are overridden, as for"
    " run."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns 0; 1 where verify found damage or reproduce a difference; 2 for an error the user can
    mend; 130 after a signal.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, overrides = _parser()[0].parse_known_args(given)
    try:
        return _VERBS[options.verb](options, overrides)
    except Interrupted as error:
        print(f"mi-jax: {error}. To go on:\n  mi-jax {shlex.join(given)}", file=sys.stderr)
        return 130
    except MiJaxError as error:
        print(f"mi-jax: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each verb that trains."""
    parser = argparse.ArgumentParser(
        "mi-jax", description="Training-dynamics interpretability in JAX.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    training: dict[str, argparse.ArgumentParser] = {}
    for name, told in (
        ("run", "train or resume an experiment, measure, date, plot and report"),
        ("train", "train or resume an experiment"),
    ):
        verb = _verb(verbs, name, told, epilog=_OVERRIDES, add_help=False)
        verb.add_argument(
            "experiment",
            nargs="?",
            help="a shipped experiment's name, a .py file, or a run to go on with",
        )
        verb.add_argument(
            "--out",
            help="the run's directory (default: checkpoints/NAME); an existing run is resumed",
        )
        histories.add_interventions(verb)
        verb.add_argument(
            "--dry-run", action="store_true", help="say what it would take, and write nothing"
        )
        verb.add_argument(
            "--route", help="how to compute the model: plain or table; the cheaper by default"
        )
        verb.add_argument(
            "--seed-mode",
            choices=("mapped", "vmapped"),
            help="seeds one by one or all at once (default: the faster)",
        )
        verb.add_argument(
            "--allow-other-machine",
            action="store_true",
            help="resume where versions or cores differ",
        )
        verb.add_argument(
            "-h",
            "--help",
            action="store_true",
            help="this text; with an experiment also its overrides",
        )
        _common(verb)
        training[name] = verb
    verb = _verb(verbs, "sweep", "train an experiment over a grid of settings", epilog=_SWEPT)
    verb.add_argument("experiment", help="a shipped experiment's name, or a .py file")
    verb.add_argument(
        "--out",
        help="the sweep's folder (default: checkpoints/NAME-sweep); what it holds is gone on with",
    )
    verb.add_argument(
        "--processes",
        type=int,
        help="runs at a time, each on a core of its own (default: one a core)",
    )
    verb.add_argument(
        "--gap",
        type=int,
        default=1000,
        help="steps between memorising and generalising that make it grokking",
    )
    verb.add_argument(
        "--level",
        type=float,
        default=0.9,
        help="the accuracy at which a seed counts as having learned",
    )
    _common(verb)
    histories.declare(lambda name, told: _with_common(_verb(verbs, name, told)))
    verb = _verb(verbs, "measure", "read a run, or a file of weights", epilog=_OVERRIDES)
    verb.add_argument("target", metavar="RUN|WEIGHTS.npz")
    verb.add_argument(
        "--like",
        metavar="EXPERIMENT",
        help="for weights: the experiment whose model and task they are of",
    )
    verb.add_argument(
        "--measures",
        help=(
            f"names, comma-separated (default: all that are cheap); see list measures. {_CALLS};"
            " list options says which"
        ),
    )
    verb.add_argument(
        "--out",
        metavar="FILE.nc",
        help="for weights: where to write the readings (default: nowhere)",
    )
    _common(verb)
    verb = _target(
        _verb(verbs, "reproduce", "train a run's experiment again and compare every stored number")
    )
    verb.add_argument("--out", help="where to train it again (default: RUN-again, beside the run)")
    _common(verb)
    _common(_target(_verb(verbs, "report", "figures and report.html of a measured run")))
    _common(_target(_verb(verbs, "info", "what a run is and how far it got")))
    _common(_target(_verb(verbs, "verify", "check every stored number of a run")))
    verb = _verb(verbs, "list", "list what there is")
    verb.add_argument("kind", choices=("tasks", "models", "measures", "options", "experiments"))
    verb.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser, training


def _verb(verbs: Any, name: str, told: str, **options: Any) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name, help=told, description=told[0].upper() + told[1:] + ".", allow_abbrev=False, **options
    )


def _target(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    verb.add_argument("run", help="a run's directory")
    return verb


def _with_common(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _common(verb)
    return verb


def _common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--json", action="store_true", help="one JSON object on stdout and nothing else there"
    )
    verb.add_argument("--quiet", action="store_true", help="no progress on stderr")
    verb.add_argument(
        "--no-compile-cache",
        action="store_true",
        help="compile anew instead of using the user's cache folder",
    )


def _no_overrides(overrides: Sequence[str], verb: str) -> None:
    if overrides:
        raise ConfigError(f"{verb} doesn't know {' '.join(overrides)}; see mi-jax {verb} --help")


def _start(options: argparse.Namespace) -> str | None:
    """Turns the compile cache on, for this process alone; returns its folder."""
    if options.no_compile_cache:
        return None
    from mi_jax.training.machine import use_compile_cache

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "mi_jax" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    use_compile_cache(str(folder))
    return str(folder)


def _experiment(name: str, overrides: Sequence[str], verb: str) -> Any:
    from mi_jax.cli.overrides import with_overrides
    from mi_jax.runs.library import find

    return with_overrides(find(name), overrides, f"mi-jax {verb} {name}")


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.help or options.experiment is None:
        return _help(options)
    experiment = _experiment(options.experiment, overrides, options.verb)
    experiment = histories.with_interventions(experiment, options.intervention)
    _start(options)
    is_run = (Path(options.experiment) / "run.json").is_file()
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
            route=options.route,
            seed_mode=options.seed_mode,
        )
    if options.verb == "train":
        _print(options, _described(run), f"trained: {run.path}")
        return 0
    with measuring_progress(options.quiet) as watch_measures:
        run.measure(watch=watch_measures)
    return _show_report(options, run)


def _history(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, options.verb)
    _start(options)
    made, text = histories.HANDLERS[options.verb](options)
    _print(options, made if isinstance(made, dict) else _described(made), text)
    return 0


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.cli.overrides import with_swept
    from mi_jax.runs.library import find
    from mi_jax.runs.sweep import sweep

    experiment, axes = with_swept(
        find(options.experiment), overrides, f"mi-jax sweep {options.experiment}"
    )
    cache = _start(options)
    summary = sweep(
        experiment,
        axes,
        options.out,
        processes=options.processes,
        gap=options.gap,
        level=options.level,
        watch=lambda done, total, name: (
            None if options.quiet else print(f"{done}/{total} {name}", file=sys.stderr, flush=True)
        ),
        source=options.experiment if options.experiment.endswith(".py") else None,
        compile_cache=cache,
    )
    folder = options.out or f"checkpoints/{experiment.name}-sweep"
    table = summary.to_dataframe().reset_index()
    told = [
        {name: None if value != value else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    _print(options, told, f"{table.to_csv(sep=chr(9), index=False)}sweep: {folder}")
    return 0


def _help(options: argparse.Namespace) -> int:
    """The verb's help, and with an experiment its overrides."""
    _parser()[1][options.verb].print_help()
    if options.help and options.experiment:
        print()
        _experiment(options.experiment, ["--help"], options.verb)
    return 0 if options.help else 2


def _dry_run(experiment: Any, options: argparse.Namespace) -> int:
    from mi_jax.runs.cost import cost

    told = cost(experiment)
    lines = [
        (
            f"{name.replace('_', ' ')}\t{value:,.2f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' ')}\t{value:,}"
        )
        for name, value in told.items()
    ]
    _print(options, told, "\n".join(lines))
    return 0


def _measure(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.basics.calls import split_calls
    from mi_jax.measuring.merging import last_step

    chosen = split_calls(options.measures) if options.measures else None
    target = Path(options.target)
    if target.is_dir():
        _no_overrides(
            [
                *overrides,
                *(["--like"] if options.like else []),
                *(["--out"] if options.out else []),
            ],
            "measure of a run",
        )
        _start(options)
        dataset, skipped = _measure_run(target, chosen, options.quiet)
        told: dict[str, Any] = {str(seed): readings for seed, readings in last_step(dataset)}
        lines = [
            line
            for seed, readings in told.items()
            for line in lines_of_readings(readings, f"{seed}.")
        ]
    else:
        if not target.is_file():
            raise ConfigError(f"there is no run or file {target}")
        if not options.like:
            raise ConfigError(
                f"{target} is a file of weights: say with --like which experiment's model and task"
                " it is of"
            )
        experiment = _experiment(options.like, overrides, "measure")
        _start(options)
        dataset, skipped = _measure_file(target, experiment, chosen, options.out)
        told = next(readings for _, readings in last_step(dataset))
        lines = lines_of_readings(told)
    for reason in dict.fromkeys(one.reason for one in skipped):
        print(
            f"not read: {', '.join(one.name for one in skipped if one.reason == reason)}: {reason}",
            file=sys.stderr,
        )
    _print(options, told, "\n".join(lines))
    return 0


def _measure_run(path: Path, chosen: list[str] | None, quiet: bool) -> tuple[Any, Any]:
    from mi_jax.cli.progress import measuring_progress
    from mi_jax.measuring.choosing import choose
    from mi_jax.runs.run import open_run

    run = open_run(path)
    _, skipped = choose(chosen, run.subject)
    with measuring_progress(quiet) as watch:
        return run.measure(chosen, watch=watch), skipped


def _measure_file(
    file: Path, experiment: Any, chosen: list[str] | None, out: str | None
) -> tuple[Any, Any]:
    from mi_jax.measuring.choosing import choose
    from mi_jax.measuring.files import write_dataset
    from mi_jax.measuring.stored import measure_weights
    from mi_jax.runs.weights import load_weights
    from mi_jax.training.machine import machine

    subject = experiment.subject()
    measures, skipped = choose(chosen, subject, frozenset({"final"}))
    params, ignored = load_weights(file, subject.model, subject.precision)
    if ignored:
        print(f"arrays that are no parameters, ignored: {', '.join(ignored)}", file=sys.stderr)
    told = {
        "experiment": experiment.to_json(),
        "hash": experiment.hash,
        "machine": machine(),
        "weights": file.name,
    }
    dataset = measure_weights(params, subject, measures, told)
    if out:
        write_dataset(Path(out), dataset)
    return dataset, skipped


def _report(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, "report")
    from mi_jax.runs.run import open_run

    return _show_report(options, open_run(options.run))


def _show_report(options: argparse.Namespace, run: Any) -> int:
    from mi_jax.measuring.merging import last_step
    from mi_jax.report.findings import numbers_table
    from mi_jax.report.study import report

    made = report(run)
    rows = numbers_table(made.dataset, made.dates, made.phases)
    told = {
        "report": str(made.report),
        "run": str(run.path),
        "seeds": {str(s): r for s, r in last_step(made.dataset)},
    }
    if options.json or not sys.stdout.isatty():
        text = "\n".join("\t".join([label, *cells]) for label, cells in rows)
        _print(options, told, f"{text}\nreport: {made.report}")
        return 0
    print_table(rows)
    print(f"report: {made.report}")
    return 0


def _reproduce(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, "reproduce")
    _start(options)
    from mi_jax.cli.progress import training_progress
    from mi_jax.runs.fork import train_again
    from mi_jax.runs.run import open_run
    from mi_jax.training.machine import bit_differences
    from mi_jax.training.verifying import problems

    first = open_run(options.run)
    out = Path(options.out) if options.out else first.path.with_name(f"{first.path.name}-again")
    _check_fresh(first, out)
    with training_progress(first.experiment, options.quiet) as watch:
        again = train_again(first, out, watch=watch)
    different = [
        *problems(first.trajectories[0]),
        *first.trajectories[0].differences(again.trajectories[0]),
    ]
    elsewhere = bit_differences(first.record["machine"], again.record["machine"])
    told = {
        "run": str(first.path),
        "again": str(again.path),
        "equal": not different,
        "different": different,
        "machine": elsewhere,
    }
    text = "every stored number is the same, bit for bit" if not different else "\n".join(different)
    _print(options, told, "\n".join([text, *elsewhere, f"again: {again.path}"]))
    return 1 if different else 0


def _check_fresh(first: Any, out: Path) -> None:
    """Refuses to compare a run with itself, or with what was trained before."""
    from mi_jax.runs.run import open_run

    if out.resolve() == first.path:
        raise RunError(
            f"{out} is the run itself: it is trained again into another directory; give another"
            " --out"
        )
    if (out / "run.json").exists() and open_run(out).trajectories[0].done >= first.trajectories[
        0
    ].last:
        raise RunError(
            f"{out} holds a finished run, which says nothing of this code: remove it, or give"
            " another --out"
        )


def _info(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, "info")
    from mi_jax.runs.run import open_run

    told = _described(open_run(options.run))
    _print(options, told, "\n".join(lines_of(told)))
    return 0


def _described(run: Any) -> dict[str, Any]:
    status = {
        str(seed): {"state": one.state, "last_finite_step": one.last_finite_step}
        for seed, one in run.status.items()
    }
    measured = sorted(map(str, run.measures.data_vars))
    return {
        "run": str(run.path),
        "hash": run.record["hash"],
        **({"parent": run.record["parent"]} if run.parent else {}),
        "seeds": list(run.seeds),
        "steps": run.record["steps"],
        "snapshots": len(run.steps),
        "trained_to": int(run.losses.sizes["step"]),
        "status": status,
        "measures": measured,
        "experiment": run.record["experiment"],
        "machine": run.record["machine"],
    }


def _verify(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, "verify")
    from mi_jax.training.trajectory import Trajectory
    from mi_jax.training.verifying import problems

    trajectory = Trajectory(options.run)
    found = list(problems(trajectory))
    _print(
        options,
        {"run": str(trajectory.path), "problems": found},
        "\n".join(found) or f"{trajectory.path}: every stored number is what was written",
    )
    return 1 if found else 0


def _list(options: argparse.Namespace, overrides: list[str]) -> int:
    _no_overrides(overrides, "list")
    from mi_jax.cli.listing import LISTS

    heads, rows_of = LISTS[options.kind]
    rows = rows_of()
    if options.json:
        print(json.dumps({name: told for name, *told in rows}))
    elif sys.stdout.isatty():
        print_table([("name", heads), *((name, told) for name, *told in rows)])
    else:
        print("\n".join("\t".join(row) for row in rows))
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "run": _run,
    "train": _run,
    "sweep": _sweep,
    "fork": _history,
    "zoom": _history,
    "compare": _history,
    "measure": _measure,
    "report": _report,
    "reproduce": _reproduce,
    "info": _info,
    "verify": _verify,
    "list": _list,
}


def _print(options: argparse.Namespace, told: Any, text: str) -> None:
    print(json.dumps(told) if options.json else text)
