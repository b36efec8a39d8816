"""Two circuits planted one after another: nothing is trained, and every event of the run is known
beforehand.

Question: do measures and dates find what was put there, in its order, and nothing in a random walk?
Paper: none; the networks are the quadratic MLP of Gromov 2023, arXiv 2301.02679, with phases that
    cancel exactly.
Command: mi-jax run planted
    The null: mi-jax run planted --path.name random_walk --out checkpoints/random_walk
Minutes: 1 on 2 cores.
Printed, by seed 0, 1, 2:
    key frequencies 3 7, 3 7, 3 7; frequency 3 is born at step 43, 42, 43, frequency 7 at step 130,
    130, 130, as run.json records as the truth; generalised at once: memorised between 59 and 60, 58
    and 59, 58 and 59, and generalised between 58 and 59 (all seeds);
    restricted loss 1.9e-4, excluded loss 3.135 = log 23, logit FVE 1 for all.
    The random walk: did not memorise; key frequencies are all eleven; test accuracy .030, .042,
    .023 at the end, where 1/23 is .043.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.planted import TwoCircuits
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import every

experiment = Experiment(
    name="planted",
    task=ModularArithmetic(p=23, fraction=0.5, format="a b"),
    model=MLP(width=18),
    steps=200,
    schedule=every(1),
    seeds=(0, 1, 2),
    path=TwoCircuits(frequencies=(3, 7), onsets=(40, 120), width=20),
)
