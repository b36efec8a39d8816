"""Composition in a group: which irreps does a network compute by, and do the neurons hold anything else that matters?

Question: does an MLP that groks a group's product use the group's representations, and which?
Paper: Chughtai et al. 2023, arXiv 2302.03025: its main network and decay, on S4, which groks in a minute, in place of S5.
The published S5: --task.group S5 --task.fraction 0.4 --optimizer.learning-rate 1e-3 --steps 250000, HOURS.
Command: mi-jax run chughtai_2023
Minutes: MINUTES
Published weights: mi-jax measure W.npz --like chughtai_2023 --task.group S5.
Printed, by seed: PRINTED
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
