"""The command line's verbs of other histories: fork, zoom, compare. Nothing heavy is imported
before one of them works.
"""

import argparse
import ast
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast


def _intervention_help() -> str:
    """Help of ``--intervention``, which names every registered intervention.

    The names are read from the source of the registry: importing it would import jax, and help must
    come at once.
    """
    source = (files("mi_jax") / "interventions" / "__init__.py").read_text(encoding="utf-8")
    [registry] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INTERVENTIONS"
    ]
    *names, last = [ast.unparse(value) for value in cast(ast.Dict, registry).values]
    return (
        'a change to training, such as \'Change(field="optimizer.weight_decay", value=0.3,'
        " start=400)'; the arguments are literals, parsed and never executed; may be repeated."
        f" {', '.join(names)} and {last} are described in mi_jax.interventions"
    )


def declare(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Adds the verbs, given what makes one of a name and a line about it."""
    one = verb("fork", "go on from a run's exact state at a step, with or without a change")
    one.add_argument("run", help="a run's directory")
    one.add_argument(
        "--step",
        type=int,
        required=True,
        help="the step to fork from; any that the run has reached",
    )
    add_interventions(one)
    one.add_argument("--steps", type=int, help="the step to train to (default: the run's last)")
    _trained(one, "the fork's directory (default: RUN-fork-STEP); an existing fork is resumed")
    one = verb("zoom", "dense snapshots of a run around a step, bitwise on its trajectory")
    one.add_argument("run", help="a run's directory")
    one.add_argument("--around", type=int, required=True, help="the step in the middle")
    one.add_argument(
        "--every", type=int, default=1, help="steps from one snapshot to the next (default: 1)"
    )
    one.add_argument("--width", type=int, help="steps to either side (default: 64 times --every)")
    _trained(one, "where to keep them (default: RUN-zoom-STEP)")
    one = verb("compare", "a run and its forks: one dataset and one figure of the histories")
    one.add_argument("run", help="the parent's directory")
    one.add_argument("forks", nargs="+", metavar="FORK", help="the forks' directories")
    one.add_argument(
        "--measures",
        help="names, comma-separated (default: losses and accuracies); see list measures",
    )
    one.add_argument("--out", help="folder for comparison.nc, .png and .svg (default: RUN-compare)")


def add_interventions(verb: argparse.ArgumentParser) -> None:
    """The option that changes training."""
    verb.add_argument(
        "--intervention",
        action="append",
        default=[],
        metavar="CALL",
        help=_intervention_help(),
    )


def _trained(verb: argparse.ArgumentParser, out: str) -> None:
    verb.add_argument("--out", help=out)
    verb.add_argument(
        "--allow-other-machine", action="store_true", help="go on where versions or cores differ"
    )


def parsed(texts: Sequence[str]) -> tuple[Any, ...]:
    """Interventions from the command line. Raises ConfigError for a text that is none."""
    from mi_jax.interventions import INTERVENTIONS
    from mi_jax.interventions.parsing import parse

    return tuple(parse(text, INTERVENTIONS) for text in texts)


def with_interventions(experiment: Any, texts: Sequence[str]) -> Any:
    """The experiment with more interventions."""
    return (
        replace(experiment, interventions=(*experiment.interventions, *parsed(texts)))
        if texts
        else experiment
    )


def fork(options: argparse.Namespace) -> tuple[Any, str]:
    """The run that was made, and a line about it."""
    from mi_jax.cli.progress import training_progress
    from mi_jax.runs.fork import fork as forked
    from mi_jax.runs.run import open_run

    chosen, parent = parsed(options.intervention), open_run(options.run)
    with training_progress(parent.experiment, options.quiet) as watch:
        run = forked(
            parent,
            step=options.step,
            interventions=chosen,
            steps=options.steps,
            out=options.out,
            watch=watch,
            allow_other_machine=options.allow_other_machine,
        )
    fresh = (
        ""
        if run.record["parent"]["state"] == "exact"
        else ", with a fresh optimizer state: the run holds no train states"
    )
    return run, f"forked at step {options.step}{fresh}: {run.path}"


def zoom(options: argparse.Namespace) -> tuple[Any, str]:
    """The run that was made, and a line about it."""
    from mi_jax.cli.progress import training_progress
    from mi_jax.runs.fork import zoom as zoomed
    from mi_jax.runs.run import open_run

    parent = open_run(options.run)
    with training_progress(parent.experiment, options.quiet) as watch:
        run = zoomed(
            parent,
            around=options.around,
            every=options.every,
            width=options.width,
            out=options.out,
            watch=watch,
            allow_other_machine=options.allow_other_machine,
        )
    return (
        run,
        (
            f"zoomed: {len(run.steps)} snapshots from step {run.steps[0]} to {run.steps[-1]}:"
            f" {run.path}"
        ),
    )


def compare(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Where the comparison is and how the histories end, and the same as text."""
    import numpy as np

    from mi_jax import plots
    from mi_jax.basics.calls import split_calls
    from mi_jax.cli.progress import measuring_progress
    from mi_jax.measuring.files import write_dataset
    from mi_jax.runs import compare as comparing

    chosen = None if options.measures is None else split_calls(options.measures)
    with measuring_progress(options.quiet) as watch:
        made = comparing.compare(options.run, options.forks, measures=chosen, watch=watch)
    parent = Path(options.run).resolve()
    folder = Path(options.out) if options.out else parent.with_name(f"{parent.name}-compare")
    plots.save(made.figure, folder, "comparison")
    write_dataset(folder / "comparison.nc", made.dataset)
    names = [name for name in made.dataset.data_vars if name != "loss"]
    ends: dict[str, dict[str, float | None]] = {}
    for label in made.dataset["condition"].values:
        last = made.dataset.sel(condition=label).dropna(
            "step", how="all", subset=["weight_distance"]
        )
        medians = {
            name: float(np.median(last[name].values[:, -1])) if last.sizes["step"] else np.nan
            for name in names
        }
        ends[str(label)] = {
            str(name): value if np.isfinite(value) else None for name, value in medians.items()
        }
    rows = ["\t".join(["at the end, median over seeds", *map(str, names)])]
    rows += [
        "\t".join([label, *("" if v is None else f"{v:.4g}" for v in end.values())])
        for label, end in ends.items()
    ]
    told = {
        "comparison": str(folder / "comparison.nc"),
        "figure": str(folder / "comparison.png"),
        "ends": ends,
    }
    return told, "\n".join([*rows, f"compared: {folder / 'comparison.png'}"])


HANDLERS: dict[str, Callable[[argparse.Namespace], tuple[Any, str]]] = {
    "fork": fork,
    "zoom": zoom,
    "compare": compare,
}
"""By verb, what does it."""
