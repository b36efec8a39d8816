"""The four ways of learning in the plane of learning rate and weight decay, on the smallest network that groks.

Question: where does a network comprehend, grok, memorise or fail, and how sharp are the borders?
Paper: the phase diagram of Liu et al. 2022, arXiv 2205.10343, on the quadratic MLP of Gromov 2023, arXiv 2301.02679. Their gap of
1,000 steps is kept; the budget is 2,500 steps in place of 1e5.
Command: mi-jax sweep liu_2022 --optimizer.learning-rate 3e-4,1e-3,3e-3,1e-2,3e-2 --optimizer.weight-decay 0,0.1,1,5,20
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
