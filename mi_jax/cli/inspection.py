"""Verbs that check and show what there is: reproduce, info, verify, list.

Nothing heavy is imported before one of them works.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_jax.basics.errors import RunError
from mi_jax.cli.printing import lines_of, print_table
from mi_jax.cli.verbs import Verb, add_common_options, add_run, describe, print_answer, use_cache

_REPRODUCE = """\
Trains in another directory with the code that is installed now. Exit status 0: every stored
number is the same; 1: some differ, and are listed.

Example:
  mi-jax reproduce checkpoints/grokking
"""

_INFO = """\
Prints the settings, the machine, the state of each seed, and the measures that are stored.

Example:
  mi-jax info checkpoints/grokking
"""

_VERIFY = """\
Every array is read and compared with the hash that was stored with it. Exit status 0: sound;
1: damaged, with the damaged parts listed.

Example:
  mi-jax verify checkpoints/grokking
"""

_LIST = """\
Kinds:
  tasks         with paper, ground truth and smallest setting
  models        with a sentence about each
  measures      with dims and source; 'retrospective' measures need the end of training,
                those marked 'when named' are slow and only read when named
  options       measures that take options, with the defaults
  experiments   that come with the package

Example:
  mi-jax list measures
"""


def _add_reproduce_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--out", help="directory to train in (default: RUN-again, beside the run)")
    add_common_options(parser)


def _reproduce(options: argparse.Namespace, overrides: list[str]) -> int:
    use_cache(options)
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
    # The stored hashes alone are not enough: an array may have been damaged after it was hashed.
    different = [
        *problems(first.trajectories[0]),
        *first.trajectories[0].differences(again.trajectories[0]),
    ]
    other_machine = bit_differences(first.record["machine"], again.record["machine"])
    answer = {
        "run": str(first.path),
        "again": str(again.path),
        "equal": not different,
        "different": different,
        "machine": other_machine,
    }
    lines = different or ["every stored number is the same, bit for bit"]
    print_answer(options, answer, "\n".join([*lines, *other_machine, f"again: {again.path}"]))
    return 1 if different else 0


def _check_fresh(first: Any, out: Path) -> None:
    """Refuse to compare a run with itself, or with an earlier reproduction."""
    from mi_jax.runs.run import open_run

    if out.resolve() == first.path:
        raise RunError(f"Cannot reproduce a run in its own directory {out}. Give another --out.")
    if not (out / "run.json").exists():
        return
    if open_run(out).trajectories[0].done >= first.trajectories[0].last:
        raise RunError(
            f"{out} already holds a finished run, which would not be trained again. Remove it or "
            "give another --out."
        )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_common_options(parser)


def _info(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.runs.run import open_run

    answer = describe(open_run(options.run))
    print_answer(options, answer, "\n".join(lines_of(answer)))
    return 0


def _verify(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.training.trajectory import Trajectory
    from mi_jax.training.verifying import began, problems

    trajectory = Trajectory(options.run)
    damage = list(problems(trajectory))
    sound = f"{trajectory.path}: nothing is stored yet; the command that began it begins it again"
    if not damage and began(trajectory):
        sound = f"{trajectory.path}: every stored number is as it was written"
        if trajectory.done < trajectory.last:
            sound += f"; it is trained to step {trajectory.done} of {trajectory.last}"
    text = "\n".join(damage) or sound
    print_answer(options, {"run": str(trajectory.path), "problems": damage}, text)
    return 1 if damage else 0


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        choices=("tasks", "models", "measures", "options", "experiments"),
        help="what to list",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def _list(options: argparse.Namespace, overrides: list[str]) -> int:
    from mi_jax.cli.listing import LISTS

    head, rows_of = LISTS[options.kind]
    rows = rows_of()
    if options.json:
        print(json.dumps({name: cells for name, *cells in rows}))
    elif sys.stdout.isatty():
        print_table([("name", head), *((name, cells) for name, *cells in rows)])
    else:
        print("\n".join("\t".join(row) for row in rows))
    return 0


VERBS: Mapping[str, Verb] = {
    "reproduce": Verb(
        "train the experiment of a run again and compare every stored number",
        _REPRODUCE,
        _add_reproduce_options,
        _reproduce,
    ),
    "info": Verb("show what a run is and how far it got", _INFO, _add_run_options, _info),
    "verify": Verb("check every stored number of a run", _VERIFY, _add_run_options, _verify),
    "list": Verb(
        "list tasks, models, measures, their options, or experiments",
        _LIST,
        _add_list_options,
        _list,
    ),
}
"""The verbs of this module by name."""
