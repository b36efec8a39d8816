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
# # Decodable, used, degenerate
#
# Three questions about a network that groks, each asked of its whole training: what can be
# *decoded* from it and what of that is *used*; which *modes* its weights are made of; how
# *degenerate* its loss is where it stands. Each answer stands beside a case whose truth is known,
# or beside a null. About two minutes on two cores.

# %% tags=["parameters"]
p, steps, snapshots, out = 29, 3_000, 61, "../checkpoints/decodable_used"
burn_in, draws, chains, tolerance = 150, 250, 4, 0.1  # of the sampler, and of its plateau

# %% [markdown]
# ## A run that groks
#
# A one-layer transformer learns $a + b \bmod 29$ from half of the pairs: memorised between steps 84
# and 95, generalised between 2,149 and 2,402. It is one seed, so that nothing here is replicated;
# another seed may not grok within these 3,000 steps.

# %%
# %matplotlib inline
import dataclasses
from functools import reduce
from itertools import pairwise
from math import log

import jax
import jax.numpy as jnp

import mi_jax
from mi_jax import across, dynamics, landscape, measures, planted, plots
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = mi_jax.Experiment(
    task=ModularArithmetic(p=p, fraction=0.5),
    model=Transformer(d_model=48, d_mlp=128),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=steps,
    schedule=log_spaced(snapshots),
)
run = mi_jax.train(experiment, out)
curves = mi_jax.measure(
    run, ["train_loss", "test_loss", "train_accuracy", "test_accuracy", "key_frequencies"]
)
dates, few = dynamics.grokking_dates(curves), run.steps[::4]
keys = curves["frequency"].values[curves["key_frequencies"].isel(seed=0, step=-1).values]
print(
    f"memorised {dynamics.date_texts(dates['memorised'])[0]},"
    f" generalised {dynamics.date_texts(dates['generalised'])[0]}; key frequencies {keys}"
)

# %% [markdown]
# ## Decodable is not used: where the truth is known
#
# A planted network holds two concepts in the same place: the previous token, which its induction
# head reads, and the token before that, which nothing reads. A probe finds both without error
# (accuracy 1.00). Erasing what it reads tells them apart: the answers move by .351 (total
# variation) without the used one and by .000 without the other; without random subspaces of the
# same rank, by up to .024.

# %%
known = planted.unused_concept()
two = {
    "sites": known.truth["site"],
    "concepts": tuple(known.truth[name]["concept"] for name in ("used", "unused")),
}
truth = dynamics.probe_readings(
    known.measure([measures.probe_accuracy(**two), measures.probe_effect(**two)])
)
for name in two["concepts"]:
    one = truth.sel(concept=name).squeeze()
    effect, null = one["probe_effect"].item(), one["probe_effect_null"].max().item()
    print(
        f"{name}: accuracy {one['probe_accuracy'].item():.2f};"
        f" erased, answers move by {effect:.3f}, by chance up to {null:.3f}"
    )

# %% [markdown]
# ## The same question of the trained network
#
# Seven concepts at six sites, read at every fourth snapshot. The control task has the same labels,
# of inputs whose tokens were renamed at random: what a probe decodes of it too, it decodes of
# tokens alone. An effect counts only where there is an accuracy: around memorising, erasing the
# difference moves the answers more than chance though nothing decodes it, for the directions of a
# label that isn't there lie along what is.

# %%
seven = ("a", "a_parity", "answer", "answer_parity", "difference", "product", "carry")
block = ("attn.z", "resid_mid", "mlp.pre", "mlp.post", "resid_post")
places = {"concepts": seven, "sites": (*(f"blocks.0.{site}" for site in block), "logits")}
probes = run.read(
    [
        make(**places)
        for make in (measures.probe_accuracy, measures.probe_effect, measures.probe_mdl)
    ],
    few,
)
plots.decodable_and_used(probes, site="blocks.0.mlp.post")

# %% [markdown]
# Where in the network, at the end: the token $a$ is used up to the MLP, the answer from the MLP's
# neurons on. What shows for the product is no use: it isn't decodable where it shows.

# %%
plots.probe_map(probes)

# %% [markdown]
# The rules behind the report's findings at the MLP's neurons, beside the online code: bits that the
# labels take given what the site holds, against $n \log_2$ classes of knowing nothing. The carry is
# read with accuracy .85, but of renamed tokens with .77 already, and its effect is .000: high
# accuracy, no use. The parity of the answer is read without error (control .50) and counts as used,
# by an effect of .024: beyond chance is not much, and what is used may be the answer (.564), of
# which it is a part.

# %%
at = probes.sel(site="blocks.0.mlp.post").isel(seed=0, step=-1)
(bits,) = (value for name, value in at.items() if str(name).startswith("probe_mdl"))
labels = run.experiment.task.labels(run.evaluation())
for one in dynamics.verdicts(probes, "blocks.0.mlp.post"):
    decodable = "decodable" if one.decodable else "not decodable"
    used = "used" if one.decodable and one.used else ""
    nothing = p * p * log(labels[one.concept].classes, 2)
    print(
        f"{one.concept:13} {decodable:13} {used:4}"
        f" accuracy {one.accuracy[0]:.2f} (control {one.control[0]:.2f}),"
        f" effect {one.effect[0]:.3f} (chance {one.null[0]:.3f}),"
        f" {bits.sel(concept=one.concept).item():.0f} of {nothing:.0f} bits"
    )

# %% [markdown]
# ## The modes of $W_L$
#
# Singular modes of the map from neurons to logits, each followed from snapshot to snapshot, so that
# one mode is one line. A colour means that one frequency holds half of the mode or more. Most of
# those born while memorising die again while the network groks.

# %%
lines = across.mode_lines(run)
plots.mode_curves(lines, seed=0).figure

# %% [markdown]
# Six modes survive, for three key frequencies, and .995 of them lies along these frequencies'
# cosines and sines (.237 at step 0, .21 by chance). Yet four of the six are grey: their singular
# values are close, so that each is a mixture, and only their span is known. The path of all weights
# bends as if it meant something, but random walks of the same steps draw much the same: shares of
# .62 and .19 for .61 and .26, and squared correlations of .86 and .88 between the scores.

# %%
share = mi_jax.measure(run, ["key_mode_share_unembedding"])["key_mode_share_unembedding"].isel(
    seed=0
)
alive = lines["mode_alive"].isel(seed=0).sum("mode")
print(
    f"modes above the untrained table's: {int(alive[-1])} at the end,"
    f" for {len(keys)} key frequencies"
)
print(
    f"leading {2 * len(keys)} modes along their cosines and sines:"
    f" {share[0]:.3f} at step 0, {share[-1]:.3f} at the end;",
    end=" ",
)
print(f"by chance {2 * len(keys) / p:.2f}")
path = across.weight_path(run)
print("share of the path's first components:", *(f"{x:.2f}" for x in path["share"].values))
print("of random walks of the same steps:   ", *(f"{x:.2f}" for x in path["walk_share"].values))
likeness = path["walk_likeness"].values.ravel()
print("squared correlation of the scores:    ", *(f"{x:.2f}" for x in likeness))
plots.path_panels(path)

# %% [markdown]
# ## Is the estimator right?
#
# The learning coefficient says how fast the volume of parameters with nearly the same loss grows.
# Of a deep linear network it is known in closed form, and it is not half of the number of
# parameters: 13.5 here, not 24. Started where every factor has the rank of their product, the
# sampler finds 12.99 +- .22. That is 2.3 errors low; the closed form is a limit, and how much of
# the difference is the finite temperature or the pull back to the start, this doesn't separate.

# %%
widths, rank = (6, 4, 6), 2
shapes = {f"W_{i}": shape for i, shape in enumerate(pairwise(widths))}
factors = {name: jnp.eye(*shape).at[rank:].set(0.0) for name, shape in shapes.items()}


def product(W):
    return reduce(jnp.matmul, [W[name] for name in shapes])


expected, target = landscape.exact.deep_linear(widths, rank), product(factors)
settings = landscape.SGLDSettings(
    n_beta=1e3,
    gamma=1.0,
    epsilon=1e-5,
    burn_in=10 * burn_in,
    draws=40 * draws,
    chains=chains,
)
found = landscape.learning_coefficient(
    lambda W: ((product(W) - target) ** 2).sum(),
    factors,
    n=1e5,
    settings=settings,
    key=jax.random.key(0),
)
print(
    f"closed form {float(expected.learning_coefficient)}, multiplicity {expected.multiplicity}",
    end="; ",
)
print(f"half the parameters {sum(a * b for a, b in shapes.values()) / 2}")
print(
    f"estimate {found.learning_coefficient:.2f} +- {found.standard_error:.2f},"
    f" R-hat {found.r_hat:.3f}"
)

# %% [markdown]
# ## Choosing the step size, not guessing it
#
# A sweep at step 505, when the training pairs are known. Hollow points are flagged: chains disagree
# (steps too small to mix), or finite steps make more than a tenth of the value (too large). Between
# them the estimate hardly depends on the step: the ringed plateau, whose middle (epsilon 2e-4, n
# beta 69.5, value 41.5) is taken from here on. There is none across temperatures: three times n
# beta gives another value, so that a value belongs to its temperature.

# %%
loss, examples = run.split_loss("train")
n, middle = len(examples.inputs), int(few[abs(few - 500).argmin()])
temperature = n / log(n)
protocol = landscape.SGLDSettings(gamma=200.0, burn_in=burn_in, draws=draws, chains=chains)
grid = {
    "epsilons": [3e-5, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 1e-3],
    "n_betas": [temperature, 3 * temperature],
}
sweep = landscape.calibrate(
    loss,
    run.params(middle),
    n=n,
    data=examples,
    key=jax.random.key(0),
    tolerance=tolerance,
    settings=protocol,
    **grid,
)
chosen = {name: sweep.attrs[name] for name in ("epsilon", "n_beta")}
print(
    f"step {middle}: plateau at {chosen},"
    f" learning coefficient {sweep.attrs['learning_coefficient']:.1f}"
)
plots.calibration_curves(sweep).figure

# %% [markdown]
# ## The learning coefficient beside the loss
#
# With the chosen numbers, at every fourth snapshot; hollow points are flagged. It rises to 90 as
# the network memorises, and falls for the rest of training: to 18.1 at step 1,232, before the test
# loss has fallen much, and to 2.2 at the end.

# %%
protocol = dataclasses.replace(protocol, **chosen)
whole = landscape.measure_learning_coefficient(settings=protocol, name="learning_coefficient")
llc = run.read([whole, "train_loss", "test_loss"], few)
plots.learning_coefficient_curves(llc)

# %% [markdown]
# What is flagged: up to step 22 the chains haven't mixed, and at step 0 the value is negative, as
# it can be where the network is no minimum: these are no learning coefficients. Localisation is
# near 1 where gamma, not the loss, holds the chains: .5 to .8 around memorising, below .4 from step
# 132 on. On a quadratic it says by how much the estimate falls as gamma rises; on this loss that is
# more (below), so that a low value is no proof that gamma doesn't matter.

# %%
flags = ("diverged", "epsilon_too_large", "negative", "below_start", "unmixed")
for step in few:
    at = llc.isel(seed=0).sel(step=step)
    raised = ", ".join(flag for flag in flags if at[f"learning_coefficient_{flag}"])
    held = at["learning_coefficient_localisation"].item()
    print(
        f"step {step:4}: {at['learning_coefficient'].item():5.1f}"
        f" +- {at['learning_coefficient_se'].item():.1f}",
        end="  ",
    )
    print(f"localisation {held:5.2f}  {raised}")

# %% [markdown]
# Of one matrix alone, the others held still (the refined coefficient): .77 +- .04 for the
# unembedding at step 505, where all parameters have 41.3; parts needn't add up to the whole. And
# what another localisation would have said at the same checkpoint: 87.3 with half of gamma, 16.4
# with twice. No plateau chooses gamma: 200 was taken so that chains mix within their draws. So
# these are values of one protocol, to be compared along one curve. They are no count of parameters,
# and no lambda of the theory.

# %%
one_matrix = landscape.measure_learning_coefficient(
    settings=protocol, parameters="unembed.W_U", name="unembedding"
)
refined = run.read([one_matrix], sorted({0, middle, steps})).isel(seed=0)
for step in refined["step"].values:
    print(
        f"unembedding alone, step {step}: {refined['unembedding'].sel(step=step).item():.2f}",
        end=" ",
    )
    print(f"+- {refined['unembedding_se'].sel(step=step).item():.2f}")
for gamma in (100.0, 400.0):
    other = landscape.learning_coefficient(
        loss,
        run.params(middle),
        n=n,
        data=examples,
        key=jax.random.key(0),
        settings=dataclasses.replace(protocol, gamma=gamma),
    )
    print(
        f"gamma {gamma:.0f}, step {middle}:"
        f" {other.learning_coefficient:.1f} +- {other.standard_error:.1f}"
    )

# %% [markdown]
# ## Sharpness
#
# The largest eigenvalue of the Hessian: 5.8 at step 0, 28 at step 84, where the learning
# coefficient peaks as well, and 1.8e-5 at the end. The training loss vanishes, and its curvature
# with it; what the learning coefficient's fall says beyond that, this notebook doesn't tell.

# %%
sharp = mi_jax.measure(run, ["sharpness"])
largest = sharp["sharpness"].isel(seed=0)
print(
    f"{largest[0]:.2g} at step 0, {largest.max():.2g} at step {largest.idxmax().item()},"
    f" {largest[-1]:.2g} at the end"
)
plots.sharpness_curves(sharp).figure
