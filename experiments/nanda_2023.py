"""The published set-up of Nanda et al. 2023: addition mod 113, full batch, 30 % of the pairs, one layer, weight decay 1.

Question: does the published network memorise early, and form its circuit of a few frequencies thousands of steps later?
Paper: arXiv 2301.05217, with its code's split (Python's random, seed 0), initialisation and warm-up; the loss is exact in float32
where the paper uses float64. The paper trains 40,000 steps: --steps 40000.
Command: mi-jax run nanda_2023
Minutes: about 10 on 2 cores; --seeds 0,1,2 --steps 16000 about 50, the published 40,000 steps about 35 a seed.
Printed with --seeds 0,1,2 --steps 16000, by seed: memorised at step 136, 137, 142; test loss below .01 at step 5,194, 7,040,
8,564 (the paper's seed: 8,258); grokked at step 5,100, 6,869, 8,241; memorisation ends at step 214, 1,286, 1,286, circuit
formation at 4,436, 5,773, 6,956, clean-up at 5,818, 8,227, 9,808; key frequencies 5 17 19 35, 14 17 37 42, 4 17 56; logit FVE
.982, .993, .990; restricted loss 5.6e-8, 7.1e-8, 6.5e-8, excluded loss 5.99, 6.98, 7.75, test loss 2.0e-7, 1.9e-7, 1.7e-7 at
the end.
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
