"""The regimes of learning in the plane of learning rate and weight decay, on the smallest
network that groks.

Question: where does a network comprehend, grok, memorise or fail, and how sharp are the borders?
Paper: the phase diagram of Liu et al. 2022, arXiv 2205.10343, on the quadratic MLP of Gromov 2023,
    arXiv 2301.02679. Their gap of 1,000 steps is kept; the budget is 2,500 steps in place of 1e5.
Command: mi-jax sweep liu_2022 --optimizer.learning-rate 3e-4,1e-3,3e-3,1e-2,3e-2
    --optimizer.weight-decay 0,0.1,1,5,20 --rule liu_2022
    The budget of the paper: --steps 100000, about .06 CPU-hours per seed, estimated from 10 steps,
    and 4 for the 75 seeds of the sweep.
Minutes: 4 on 2 cores.
Printed, of 75 seeds: generalised at once 23 (the paper's comprehension), grokked 7, did not grok 30
    (memorisation), did not memorise 15 (confusion); none diverged.
    Grokking lies between generalising at once and memorising alone: at rate 1e-3 with decay 1 (3
    of 3 seeds, between 1,400 and 1,600 steps after memorising) and 5 (1 of 3), and at 1e-2 with .1
    (3 of 3).
    With decay 20 no seed memorises at any rate, with decay 0 all memorise alone.
    Verdicts are decided by first crossings: at rate 3e-2 and decay 5 accuracies reach .9 and fall
    again. A seed counts as grokked only where its two snapshots leave no doubt.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, every

experiment = Experiment(
    name="liu_2022",
    task=ModularArithmetic(p=59, fraction=0.4),
    model=MLP(width=256, activation="quadratic"),
    optimizer=AdamW(learning_rate=1e-2, weight_decay=1.0),
    steps=2_500,
    schedule=every(50),
    seeds=(0, 1, 2),
)
