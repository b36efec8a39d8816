"""The four regimes of learning in the plane of learning rate and weight decay, on the smallest
network that groks.

Question: where does a network comprehend, grok, memorise or fail, and how sharp are the borders?
Paper: the phase diagram of Liu et al. 2022, arXiv 2205.10343, on the quadratic MLP of Gromov 2023,
    arXiv 2301.02679. Their gap of 1,000 steps is kept; the budget is 2,500 steps in place of 1e5.
Command: mi-jax sweep liu_2022 --optimizer.learning-rate 3e-4,1e-3,3e-3,1e-2,3e-2
    --optimizer.weight-decay 0,0.1,1,5,20
    The budget of the paper: --steps 100000, about .06 CPU-hours per seed, estimated from 10 steps,
    and 4 for the 75 seeds of the sweep.
Minutes: 4 on 2 cores.
Printed, of 75 seeds: comprehension 22, grokking 8, memorisation 30, confusion 15.
    Grokking lies between comprehension and memorisation: at rate 1e-3 with decay 1 (3 of 3 seeds,
    1,405 to 1,558 steps after memorising) and 5 (2 of 3), and at 1e-2 with .1.
    Decay 20 is confusion at every rate, decay 0 memorisation.
    Regimes are decided by first crossings: at rate 3e-2 and decay 5 accuracies reach .9 and fall
    again.
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
