"""Grokking in miniature: a one-layer transformer learns addition mod 59, and a circuit forms long after the data are memorised.

Question: when does the generalising circuit begin to form, and how long before the test accuracy shows it?
Paper: Nanda et al. 2023, arXiv 2301.05217, in a small setting of ours (p = 59, d_model 64, 35 % of the pairs).
Command: mi-jax run grokking
"""

from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="grokking",
    task=ModularArithmetic(p=59, fraction=0.35),
    model=Transformer(d_model=64, d_mlp=256),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=5_000,
    schedule=log_spaced(200),
    seeds=(0, 1, 2),
)
