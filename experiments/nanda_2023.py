"""The published set-up of Nanda et al. 2023: addition mod 113, full batch, 30 % of the pairs, one layer, weight decay 1.

Question: does the published network memorise early, and form its circuit of a few frequencies thousands of steps later?
Paper: arXiv 2301.05217, with its code's split (Python's random, seed 0), initialisation and warm-up; the loss is exact in float32
where the paper uses float64. The paper trains 40,000 steps: --steps 40000.
Command: mi-jax run nanda_2023
"""

from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="nanda_2023",
    task=ModularArithmetic(p=113, fraction=0.3, split="published", split_seed=0),
    model=Transformer(layers=1, d_model=128, heads=4, d_mlp=512),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=1.0, b1=0.9, b2=0.98, warmup=10),
    steps=10_000,
    schedule=log_spaced(200),
    seeds=(0,),
)
