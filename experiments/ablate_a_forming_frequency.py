"""A circuit's frequencies taken out of both tables while it forms: what grokking does then, beside
two controls.

Question: does grokking wait for the very circuit that forms before test accuracy shows it?
Paper: the circuit of Nanda et al. 2023, arXiv 2301.05217; intervening on training itself, Singh et
    al. 2024, arXiv 2404.07129.
Command: python experiments/ablate_a_forming_frequency.py
Held out for 50 updates: --stop 350.
Minutes: 17 CPU-minutes; 20 on 2 cores that others were using.
Printed, medians of 12 seeds with bootstrap 95 % intervals. The parent groks at step 818 [625, 958];
test accuracy at step 300 is .46 to .55. Grokking comes later by 210 [-4, 493] steps without the
forming frequencies, by -60 [-93, -33] without as many others, by -119 [-200, -79] without a random
subspace of the same norm; paired by seed, the first less the second is 260 [47, 557], less the
third 316 [172, 617]. Of the parent's key frequencies .42 [.29, .67] are the fork's too, of the
controls 1 [1, 1] and 1 [.88, 1]. So grokking waits for the circuit, or takes another: the one seed
that keeps all of its frequencies is 462 steps late, the one that keeps none 129 steps early. Held
out for 50 updates, none of the 12 seeds keeps any, and all grok by others, later by 5 [-76, 463]
steps; with other frequencies held out all keep all of theirs (-99 [-163, -53]), with random ones 1
[.71, 1] of them (-35 [-145, 21]). Without other frequencies grokking comes sooner, perhaps because
that part of clean-up is done.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import xarray as xr

import mi_jax
from mi_jax import Experiment, Run
from mi_jax.dynamics import interval, transitions
from mi_jax.interventions import Project
from mi_jax.models import Transformer
from mi_jax.plots import paired_effects, save
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
"""That of ``grokking.py`` on half of the pairs, where every seed groks sooner, and with more seeds.
"""


def grokked(run: Run) -> xr.DataArray:
    """By seed, the step of grokking; the last step where there is none, which makes a delay look
    shorter than it is.
    """
    return transitions(run.measure(READ)).grokked.fillna(int(run.steps[-1]))


def final_keys(run: Run) -> xr.DataArray:
    """Whether a frequency is key at the run's end, dims (seed, frequency)."""
    return run.measure(READ)["key_frequencies"].isel(step=-1)


def projection(rule: Rule, parent: Run, start: int, stop: int) -> Project:
    """What is taken out of both tables after each update from ``start`` until ``stop``.

    The frequencies that are key at the parent's end, as many others, or a random subspace whose
    removal takes as much off each table's norm at the start.
    """
    keys = final_keys(parent)
    frequencies = keys["frequency"].values
    named = tuple(
        (int(row["seed"]), tuple(int(k) for k in frequencies[row.values])) for row in keys
    )
    if rule == "key":
        return Project(TABLES, named, start=start, stop=stop)
    return Project(TABLES, rule, frequencies=named, start=start, stop=stop)


def effect(parent: Run, fork: Run) -> xr.Dataset:
    """By seed: ``delay`` of grokking in steps; ``kept``, the share of the parent's key frequencies
    that are the fork's too.
    """
    keys = final_keys(parent)
    kept = (final_keys(fork) & keys).sum("frequency") / keys.sum("frequency")
    delay = (grokked(fork) - grokked(parent)).assign_attrs(
        long_name="delay of grokking", units="steps"
    )
    kept = kept.drop_vars("step").assign_attrs(long_name="share of key frequencies kept")
    return xr.Dataset({"delay": delay, "kept": kept})


def told(name: str, values: xr.DataArray) -> str:
    """The values by seed, their median and its interval."""
    found = interval(values.values.astype(float))
    by_seed = ", ".join(
        f"{value:,.3g}" if abs(value) < 10 else f"{value:,.0f}" for value in values.values
    )
    return (
        f"{name}: {by_seed}; median {found.middle:,.4g}, {found.kind} {found.low:,.4g} to"
        f" {found.high:,.4g}"
    )


def main() -> None:
    """Trains the parent, forks it once a rule, prints the effects by seed, and draws them and the
    histories.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("checkpoints") / experiment.name)
    parser.add_argument(
        "--start",
        type=int,
        default=300,
        help="the first update after which directions are taken out",
    )
    parser.add_argument(
        "--stop", type=int, default=301, help="the first after which they are not any more"
    )
    parser.add_argument("--steps", type=int, default=experiment.steps, help="of training")
    parser.add_argument("--seeds", type=int, default=len(experiment.seeds), help="how many")
    options = parser.parse_args()
    parent = mi_jax.train(
        replace(experiment, steps=options.steps, seeds=tuple(range(options.seeds))),
        options.out / "parent",
    )
    print(told("parent: grokked at step", grokked(parent)))
    folder, forks = options.out / f"from_{options.start}_to_{options.stop}", dict[str, Run]()
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
            print(told(f"{rule} projected out: {name}", values))
    for rule in RULES[1:]:
        apart = effects.sel(condition="key") - effects.sel(condition=rule)
        for name, values in apart.items():
            print(told(f"key less {rule}: {name}", values))
    save(paired_effects(effects), folder, "effects")
    save(
        mi_jax.compare(parent, forks, measures=["test_loss", "test_accuracy"]).figure,
        folder,
        "histories",
    )


if __name__ == "__main__":
    main()
