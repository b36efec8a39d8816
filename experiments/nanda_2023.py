"""The published setting of Nanda et al. 2023: addition mod 113, full batch, 30 % of the pairs, one
layer, weight decay 1.

Question: does the published network memorise early, and form its circuit of a few frequencies
    thousands of steps later?
Paper: arXiv 2301.05217, with the split of its code (Python's random, seed 0), its initialisation
    and warm-up. The loss is exact in float32, where the paper uses float64. The paper trains 40,000
    steps: --steps 40000.
Command: mi-jax run nanda_2023
Minutes: about 6 on 2 cores; about 30 with --seeds 0,1,2 --steps 16000; about 18 per seed for the
    published 40,000 steps.
Printed with --seeds 0,1,2 --steps 16000, by seed:
    training accuracy passes .99 at step 136, 137, 142; test loss .01 at step 4,846, 7,316, 8,909
    (the paper's seed: 8,258); test accuracy .99 at step 4,771, 7,143, 8,633; all interpolated
    between snapshots, in log(step + 1);
    by shares of the fall of log test loss within these 16,000 steps (version 0.1; the rule of
    dynamics.retrospective_phases) circuit formation ends at step 4,273, 6,051, 7,217 and clean-up
    at 5,398, 8,113, 9,937, and excluded loss is smallest at 214, 1,286, 1,286;
    key frequencies 5 17 19 35, 14 17 37 42, 4 17 56; logit FVE .982, .992, .990;
    at the end restricted loss 6.2e-8, 6.6e-8, 6.7e-8, excluded loss 5.90, 7.24, 7.68, test loss
    1.8e-7, 2.2e-7, 1.6e-7.
    Rounding differs between processors and moves the late dates by a few percent.
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
