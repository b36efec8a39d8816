"""Weights held at a fixed norm: on a smaller sphere a network generalises sooner after memorising,
and on too small a sphere it does neither.

Question: is grokking a matter of how large the weights are, if they are held there without weight
    decay?
Paper: Liu et al. 2023, arXiv 2210.01117: after each update the weights are rescaled to a fixed
    norm, given in units of the initial norm; here on the quadratic MLP of arXiv 2301.02679.
Command: mi-jax run omnigrok_2023
    Other norms: --optimizer.weight-norm 2. Free weights: --optimizer.weight-norm None
    --optimizer.weight-decay 1, and --model.init-scale.
    The held norm of the paper on its modular addition: --task.p 113 --task.fraction 0.3
    --model.name transformer --model.init-scale 0.8 --optimizer.weight-norm 1 --precision float64
    --steps 15000, about .5 CPU-hours, estimated from 10 steps.
Minutes: under 1 each on 2 cores.
Printed, steps at which training and test accuracy pass .9 (interpolated between snapshots, in
    log(step + 1)), by held norm in units of the initial one:
    4: 162 and 1,638, 10 times later; for seed 0 to 4 162, 166, 170, 170, 171 and 1,638, 1,621,
    1,607, 1,646, 1,629, with medians 170 and 1,629;
    2.5: 167 and 1,199, 7 times later; medians of seeds 0 to 4 are 171 and 1,303;
    2: 196 and 1,302, 7 times later;
    1.5: 558 and later than the last step (test accuracy .815 there, rising with training accuracy);
    1 at an initial scale of .8: neither passes it (.695 and .396).
    Free weights with decay 1: 151 and 1,562 from an initial scale of 1, 148 and 2,035 from 2.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="omnigrok_2023",
    task=ModularArithmetic(p=59, fraction=0.4),
    model=MLP(width=256, activation="quadratic"),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0, weight_norm=4.0),
    steps=3_000,
    schedule=log_spaced(60),
    seeds=(0,),
)
