"""The pieces that all verbs of the command line share: the record of a verb and common options.

Nothing heavy is imported at the top of this module, so that ``--help`` answers at once.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mi_jax.basics.errors import ConfigError


class Verb(NamedTuple):
    """One verb of the command line.

    Attributes:
        summary: one line for ``mi-jax --help``, without a full stop.
        details: further help, wrapped by hand, with at least one example.
        add_options: adds the arguments of the verb to its parser.
        handle: does the work; takes the options and the arguments that the parser does not know,
            returns the exit status.
        takes_overrides: whether unknown arguments are passed to ``handle`` as settings of an
            experiment. Otherwise an unknown argument is an error.
        adds_help: whether argparse answers ``--help``. Otherwise ``handle`` does.
    """

    summary: str
    details: str
    add_options: Callable[[argparse.ArgumentParser], None]
    handle: Callable[[argparse.Namespace, list[str]], int]
    takes_overrides: bool = False
    adds_help: bool = True


OVERRIDES = """\
Settings of the experiment are changed by name:
  --task.p 31 --optimizer.learning-rate 1e-2 --seeds 0,1,2 --steps 500
A whole part is replaced by name, before its settings are read:
  --task.name NAME               that task at its smallest setting (see mi-jax list tasks)
  --model.name NAME              that model with its defaults (see mi-jax list models)
  --optimizer.name, --loss.name, --optimizer.filter.name, --path.name
                                 likewise"""
"""The section of a verb's help about changing settings of an experiment."""


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every working verb has."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout and nothing else there"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress on stderr")
    parser.add_argument(
        "--no-compile-cache",
        action="store_true",
        help="compile everything again (default: reuse compiled programs from ~/.cache/mi_jax)",
    )
    parser.add_argument(
        "--allow-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="import MODULE, from the current folder or from beside a file that the command names, "
        "if a run uses its classes; may be repeated (default: a run imports no code)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the one positional argument of verbs that work on a run."""
    parser.add_argument("run", help="directory of the run")


def add_other_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options to continue a run on another machine, and to write it without a lock."""
    parser.add_argument(
        "--allow-other-machine",
        action="store_true",
        help="continue although versions, flags or the number of cores differ from those that the "
        "run started with, so that results may differ in their last bits (default: refuse)",
    )
    parser.add_argument(
        "--allow-no-lock",
        action="store_true",
        help="write the run although its file system has no locks: see that no other process "
        "trains it (default: refuse)",
    )


def add_dating(parser: argparse.ArgumentParser) -> None:
    """Add the options of the rule that dates memorising, generalising and grokking."""
    # The defaults are those of mi_jax.dynamics, whose import would make --help slow; a test holds
    # them equal.
    parser.add_argument(
        "--rule",
        choices=("default", "liu_2022"),
        default="default",
        help="what --level and --gap are by default: default, or liu_2022 (arXiv 2205.10343): "
        "accuracy 0.9, and a gap of 1000 in steps (default: default)",
    )
    parser.add_argument(
        "--level",
        type=float,
        help="accuracy at which a seed has memorised (training) or generalised (test) "
        "(default: 0.99)",
    )
    parser.add_argument(
        "--gap",
        type=float,
        help="a seed has grokked if it generalised at this many times the step of memorising or "
        "later; with --rule liu_2022, this many steps after memorising (default: 2)",
    )


def dating_rule(options: argparse.Namespace) -> Any:
    """Make the rule of ``add_dating``'s options.

    Raises:
        ConfigError: for a level that is no accuracy, or a gap that is too small.
    """
    from mi_jax.dynamics import GROKKING_RULES

    given = {name: getattr(options, name) for name in ("level", "gap")}
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return replace(GROKKING_RULES[options.rule], **changes)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def refuse_overrides(arguments: Sequence[str], verb: str) -> None:
    """Raise ConfigError if there are arguments that the verb does not have."""
    if arguments:
        name = verb.split()[0]
        raise ConfigError(
            f"{verb} does not take {' '.join(arguments)}. See mi-jax {name} --help for its options."
        )


def beside(options: argparse.Namespace) -> list[Path]:
    """Folders of the files that a command names, in which allowed modules are looked for too."""
    names = (getattr(options, option, None) for option in ("experiment", "like", "target"))
    files = [Path(name) for name in names if isinstance(name, str) and os.path.isfile(name)]
    return [file.parent for file in files]


def use_cache(options: argparse.Namespace) -> str | None:
    """Turn on JAX's compile cache for this process, unless ``--no-compile-cache`` is given.

    Returns:
        The folder of the cache; None if it is off or the folder cannot be created.
    """
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


def load_experiment(name: str, overrides: Sequence[str], verb: str) -> Any:
    """Find an experiment by name, file or run, and apply the overrides."""
    from mi_jax.cli.overrides import with_overrides
    from mi_jax.runs.library import find

    return with_overrides(find(name), overrides, f"mi-jax {verb} {name}")


def print_answer(options: argparse.Namespace, answer: Any, text: str) -> None:
    """Print the answer as JSON with ``--json``, else the text."""
    print(json.dumps(answer) if options.json else text)


def describe(run: Any) -> dict[str, Any]:
    """Summarise a run: identity, progress, status of each seed, stored measures, settings."""
    status = {
        str(seed): {"state": status.state, "last_finite_step": status.last_finite_step}
        for seed, status in run.status.items()
    }
    measures = sorted(map(str, run.measures.data_vars))
    return {
        "run": str(run.path),
        "hash": run.record["hash"],
        **({"parent": run.record["parent"]} if run.parent else {}),
        "seeds": list(run.seeds),
        "steps": run.record["steps"],
        "snapshots": len(run.steps),
        "trained_to": run.trajectories[0].done,
        "status": status,
        "measures": measures,
        "experiment": run.record["experiment"],
        "machine": run.record["machine"],
    }
