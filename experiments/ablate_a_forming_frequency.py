"""The frequencies of a circuit are taken out of both tables while it forms, beside two controls, to
see what grokking does then.

Question: does grokking wait for the very circuit that forms before test accuracy shows it?
Paper: the circuit of Nanda et al. 2023, arXiv 2301.05217; intervening on training itself, Singh et
    al. 2024, arXiv 2404.07129.
Command: python experiments/ablate_a_forming_frequency.py
    To hold the frequencies out for 50 updates: --stop 350.
Minutes: 17 CPU-minutes; 20 on 2 shared cores.
Printed on CPU: medians of 12 seeds with intervals of 96.1 % coverage; a date lies between two
    snapshots, which are 25 steps apart.
    The parent's test accuracy passes .99 between steps 800 and 825 [600 to 975].
    Grokking comes later by 187.5 to 237.5 steps [-50 to 550] without the forming frequencies,
    sooner by 25 to 75 [0 to 125] without as many other frequencies, and sooner by 87.5 to 137.5
    [50 to 250] without a random subspace of the same norm. Paired by seed, the first less the
    second is 225 to 275 [0 to 625], the first less the third 275 to 325 [150 to 700].
    Of the parent's key frequencies the fork keeps .42 [.25, .67], the controls 1 [1, 1] and 1
    [.75, 1].
    So grokking waits for the circuit, or takes another: the one seed that keeps all of its
    frequencies is 450 to 500 steps late, the one that keeps none is 100 to 150 steps early.
    Held out for 50 updates, none of the 12 seeds keeps any of its frequencies, and all grok by
    others, later by -12.5 to 37.5 steps [-125 to 575]. With other frequencies held out, all seeds
    keep all of theirs (sooner by 75 to 125 [0 to 200]); with random ones they keep 1 [.67, 1]
    (sooner by 0 to 50 [-75 to 225]).
    Without other frequencies grokking comes sooner, perhaps because that part of clean-up is done.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import xarray as xr

import mi_jax
from mi_jax import Experiment, Run
from mi_jax.dynamics import date_differences, date_text, difference_text, interval, median_text
from mi_jax.interventions import Project
from mi_jax.models import Transformer
from mi_jax.plots import paired_effects, save
from mi_jax.runs.dates import run_dates
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, every

Rule = Literal["key", "control", "random"]
RULES: tuple[Rule, ...] = ("key", "control", "random")
TABLES = ("embed.W_E", "unembed.W_U")
READ = ("train_accuracy", "test_accuracy", "test_loss", "key_frequencies")

experiment = Experiment(
    name="ablate_a_forming_frequency",
    task=ModularArithmetic(p=59, fraction=0.5),
    model=Transformer(d_model=64, d_mlp=256),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=2_500,
    schedule=every(25),
    seeds=tuple(range(12)),
)
"""The experiment of ``grokking.py`` on half of the pairs, where every seed groks sooner, and with
more seeds.
"""


def generalised(run: Run) -> xr.DataArray:
    """Date generalising by seed, dims (seed, bound), in steps; open above for a seed that has not.

    What happened before a fork has the date of its parent.
    """
    return run_dates(run, readings=run.measure(READ))["generalised"]


def final_keys(run: Run) -> xr.DataArray:
    """Tell which frequencies are key at the end of a run, dims (seed, frequency)."""
    return run.measure(READ)["key_frequencies"].isel(step=-1)


def projection(rule: Rule, parent: Run, start: int, stop: int) -> Project:
    """Make the intervention that takes a subspace out of both tables.

    Args:
        rule: "key" for the frequencies that are key at the end of the parent, "control" for as many
            other frequencies, "random" for a random subspace whose removal takes as much off the
            norm of each table at the start.
        parent: the run to fork.
        start: the first update after which the subspace is taken out.
        stop: the first update after which it no longer is.
    """
    keys = final_keys(parent)
    frequencies = keys["frequency"].values
    by_seed = tuple(
        (int(row["seed"]), tuple(int(k) for k in frequencies[row.values])) for row in keys
    )
    if rule == "key":
        return Project(TABLES, by_seed, start=start, stop=stop)
    return Project(TABLES, rule, frequencies=by_seed, start=start, stop=stop)


def effect(parent: Run, fork: Run) -> xr.Dataset:
    """Compare a fork with its parent, by seed.

    Returns:
        ``delay`` of generalising in steps, dims (seed, bound), and ``kept``, dims (seed,), the
        share of the parent's key frequencies that are key in the fork too.
    """
    keys = final_keys(parent)
    kept = (final_keys(fork) & keys).sum("frequency") / keys.sum("frequency")
    delay = date_differences(generalised(parent), generalised(fork)).assign_attrs(
        long_name="delay of generalising", units="steps"
    )
    kept = kept.drop_vars("step").assign_attrs(long_name="share of key frequencies kept")
    return xr.Dataset({"delay": delay, "kept": kept})


def line_of(name: str, values: xr.DataArray, *, differences: bool = True) -> str:
    """Format the values by seed, their median and its interval.

    Args:
        name: stands before them.
        values: numbers, dims (seed,); or dates or numbers of steps, dims (seed, bound).
        differences: whether values with a dim bound are numbers of steps, not dates.
    """
    if "bound" in values.dims:
        text = difference_text if differences else date_text
        rows = values.transpose("seed", "bound").values.tolist()
        listed = ", ".join(text(*row) for row in rows)
        return f"{name}: {listed}; median {median_text(values, differences=differences)}"
    median = interval(values.values.astype(float))
    by_seed = ", ".join(
        f"{value:,.3g}" if abs(value) < 10 else f"{value:,.0f}" for value in values.values
    )
    return (
        f"{name}: {by_seed}; median {median.middle:,.4g}, {median.label}, {median.low:,.4g} to"
        f" {median.high:,.4g}"
    )


def main() -> None:
    """Train the parent, fork it once per rule, print the effects by seed, and draw them and the
    histories.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default_folder = Path("checkpoints") / experiment.name
    parser.add_argument(
        "--out",
        type=Path,
        default=default_folder,
        help=f"folder of the runs and figures (default: {default_folder})",
    )
    parser.add_argument(
        "--start",
        type=int,
        default=300,
        help="the first update after which directions are taken out (default: 300)",
    )
    parser.add_argument(
        "--stop",
        type=int,
        default=301,
        help="the first update after which they no longer are (default: 301)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=experiment.steps,
        help=f"steps of training (default: {experiment.steps})",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=len(experiment.seeds),
        help=f"number of seeds (default: {len(experiment.seeds)})",
    )
    options = parser.parse_args()
    parent = mi_jax.train(
        replace(experiment, steps=options.steps, seeds=tuple(range(options.seeds))),
        options.out / "parent",
    )
    print(line_of("parent, generalised", generalised(parent), differences=False))
    folder = options.out / f"from_{options.start}_to_{options.stop}"
    forks: dict[str, Run] = {}
    for rule in RULES:
        project = projection(rule, parent, options.start, options.stop)
        forks[rule] = mi_jax.fork(
            parent, step=options.start, interventions=[project], out=folder / rule
        )
    effects = xr.concat(
        [effect(parent, fork) for fork in forks.values()],
        xr.IndexVariable("condition", list(RULES)),
    )
    for rule in RULES:
        for name, values in effects.sel(condition=rule).items():
            print(line_of(f"{rule} projected out: {name}", values))
    kept = effects["kept"]
    for rule in RULES[1:]:
        later = date_differences(generalised(forks[rule]), generalised(forks["key"]))
        print(line_of(f"key less {rule}, generalised", later))
        apart = kept.sel(condition="key") - kept.sel(condition=rule)
        print(line_of(f"key less {rule}, kept", apart))
    save(paired_effects(effects), folder, "effects")
    comparison = mi_jax.compare(parent, forks, measures=["test_loss", "test_accuracy"])
    save(comparison.figure, folder, "histories")


if __name__ == "__main__":
    main()
