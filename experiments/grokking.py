"""Grokking in miniature: a one-layer transformer learns addition mod 59, and a circuit forms long after the data are memorised.

Question: when does the generalising circuit begin to form, and how long before the test accuracy shows it?
Paper: Nanda et al. 2023, arXiv 2301.05217, in a small setting of ours (p = 59, d_model 64, 35 % of the pairs).
Command: mi-jax run grokking
Minutes: about 3 on 2 cores (171 s alone).
Printed, by seed 0, 1, 2: memorised at step 80, 83, 85; grokked at step 2,769, 3,971, 3,852; key frequencies 1 2 22, 6 20 21 28,
2 12 19 20 25; restricted loss 1.2e-7, 2.2e-8, 4.0e-8; excluded loss 7.20, 6.92, 6.26; test accuracy 1, .9991, 1.
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
    steps=6_000,
    schedule=log_spaced(200),
    seeds=(0, 1, 2),
)
