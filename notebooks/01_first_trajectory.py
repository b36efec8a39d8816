# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first trajectory
#
# A one-layer transformer learns $a + b \bmod 59$. It knows the training pairs by heart within a
# hundred steps, and generalises thousands of steps later: grokking. We train it, read every
# snapshot, see the circuit form before the test loss shows it, add a measure of our own, and test
# the mechanism by taking it away. Two minutes on two cores.

# %% tags=["parameters"]
p, steps, snapshots, out = 59, 5_000, 200, "../checkpoints/first_trajectory"

# %% An experiment is a value: what is trained on what, for how long, and when to keep a snapshot
# %matplotlib inline
import jax.numpy as jnp

import mi_jax
from mi_jax import dynamics, plots
from mi_jax.contracts import Measure
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = mi_jax.Experiment(
    task=ModularArithmetic(p=p, fraction=0.35),
    model=Transformer(d_model=64, d_mlp=256),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=steps,
    schedule=log_spaced(snapshots),
)

# %% Train it, or go on with the run that is there: stopped at any instant, it ends at the same bits
run = mi_jax.train(experiment, out)
print(
    f"{len(run.steps)} snapshots, steps {run.steps[0]} to {run.steps[-1]};"
    f" loss {run.losses.values[0, -1]:.2e}; {run.status}"
)

# %% Read measures over every snapshot: one compiled program, one dataset with named dims
dataset = mi_jax.measure(run)
dates = dynamics.grokking_dates(dataset)
print(dict(dataset.sizes))
print(
    f"memorised {dynamics.date_texts(dates['memorised'])[0]},"
    f" generalised {dynamics.date_texts(dates['generalised'])[0]}: {dates['verdict'].item()}"
)

# %% The circuit forms (restricted loss falls) under a test loss that doesn't show it yet
plots.progress_curves(dataset, dates=dates).figure

# %% Which frequencies it is made of: the share of each in the map from neurons to logits
plots.frequency_map(dataset, seed=0).figure


# %% A measure of one's own: how far the map from neurons to logits points where it will point at
# the end (the cosine of the two)
def output_alignment(params, context):
    now, end = (
        context.model.roles.output_map(weights) for weights in (params, context.reference.final)
    )
    return (now * end).sum() / jnp.sqrt((now**2).sum() * (end**2).sum())


own = mi_jax.measure(
    run,
    [
        Measure(
            "output_alignment", output_alignment, uses=frozenset({"final"}), source="this notebook"
        )
    ],
)

# %% Beside what the package reads: the direction is settled before the test accuracy rises
axes = plots.accuracy_curves(dataset, dates=dates)
axes.plot(
    own["step"],
    own["output_alignment"].sel(seed=0),
    color="black",
    lw=1.2,
    label="output alignment",
)
axes.set_ylabel("accuracy, cosine")
axes.legend(frameon=False, fontsize=7, loc="center left")
axes.figure

# %% A causal test: the final network without each head in turn, by a tap on the head's output
params, batch = run.params(run.steps[-1]), run.evaluation().batches["test"]
for head in (None, 0, 1, 2, 3):
    taps = (
        {} if head is None else {"blocks.0.attn.z": lambda z, head=head: z.at[:, :, head].set(0.0)}
    )
    answers = run.apply(params, batch.inputs, taps=taps, positions=experiment.task.read)[
        :, -1
    ].argmax(axis=-1)
    print(
        f"without head {head}: test accuracy {float((answers == batch.targets[:, -1]).mean()):.3f}"
    )
