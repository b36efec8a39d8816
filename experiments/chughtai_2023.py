"""Composition in a group: which irreps does a network compute with, and do its neurons hold
anything else that matters?

Question: does an MLP that groks the product of a group use representations of the group, and which?
Paper: Chughtai et al. 2023, arXiv 2302.03025: its main network and weight decay, on S4, which groks
    in a minute, in place of S5.
Command: mi-jax run chughtai_2023
    The published S5 takes --task.group S5 --task.fraction 0.4 --optimizer.learning-rate 1e-3
    --steps 250000, which --dry-run estimates at 16 hours per seed on two shared cores.
    Published weights are read by: mi-jax measure W.npz --like chughtai_2023 --task.group S5.
Minutes: a few on 2 cores; five seeds train in less than two CPU-minutes.
Printed with --seeds 0-4, by seed:
    training accuracy passes .99 at step 44, 44, 45, 46, 44, test accuracy at 2,983, 2,618, 2,265,
    3,133, 5,345 (interpolated between snapshots, in log(step + 1)).
    Logit similarity at the end to 3+1: .65, .67, .71, .50, .52; to 2+2: .40, .37, .32, .42, .46; to
    2+1+1: .10, .00, .00, .29, .18; to the sign 1+1+1+1: .42, .49, .55, .40, .37. So seeds differ in
    the irreps that they use.
    Share of the logits explained by characters: .77, .83, .91, .67, .65.
    Share of the neurons' variance explained by functions of the irreps of x, y and xy: .91, .93,
    .92, .90, .92.
    Hidden restricted loss 4.1e-7, 1.7e-7, 2.9e-7, 5.2e-7, 7.0e-7; hidden excluded loss 5.40, 4.54,
    3.84, 4.07, 4.34; test loss 6.5e-5, 3.2e-6, 4.0e-6, 5.4e-4, 1.6e-3.
    Coset concentration .96, .95, .99, .94, .92; untrained networks have .48 to .50.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import GroupComposition
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="chughtai_2023",
    task=GroupComposition(group="S4", fraction=0.7),
    model=MLP(embedding="two", d_embed=256, width=128, activation="relu"),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, b1=0.9, b2=0.98),
    steps=6_000,
    schedule=log_spaced(200),
    seeds=(0, 1, 2),
)
