"""Grokking in miniature: a one-layer transformer learns addition mod 59, and a circuit forms long
after the data are memorised.

Question: when does the generalising circuit begin to form, and how long before test accuracy shows
    it?
Paper: Nanda et al. 2023, arXiv 2301.05217, in a small setting of ours (p = 59, d_model 64, 35 % of
    the pairs). The published setting is nanda_2023.
Command: mi-jax run grokking
Minutes: about 2 on 2 cores (119 s alone).
Printed, by seed 0, 1, 2:
    grokked: memorised between 78 and 80, 82 and 85, 82 and 85; generalised between 2,676 and 2,757,
    4,723 and 4,867, 3,719 and 3,948;
    circuit formation ended between 1,230 and 1,267, 1,761 and 1,814, 1,345 and 1,386;
    key frequencies 1 2 22, 6 20 21 28, 2 12 19 25 (on another processor seed 0 had 10 as well,
    and excluded losses of 10.5, 7.8, 5.8);
    restricted loss 9.7e-8, 2.5e-8, 3.9e-8; excluded loss 7.36, 6.05, 5.52; test accuracy 1 for all.
    Two modes of W_L per key frequency survive, and a share of .970, .996, .995 of them lies along
    the cosine and sine of that frequency (key_mode_share_unembedding).
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
