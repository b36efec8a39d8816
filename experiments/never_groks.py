"""A negative control: the smallest network on addition mod 31, without weight decay, memorises and
never groks.

Question: do the dates stay silent where nothing generalises?
Paper: the quadratic MLP of Gromov 2023, arXiv 2301.02679, in a setting of ours that fails: p = 31,
    128 neurons, 30 % of the pairs, decay 0.
Command: mi-jax run never_groks
    The other control has random labels, which leave nothing to generalise:
    --task.operation random.
Minutes: under one on 2 cores.
Printed, by seed 0, 1, 2: did not grok; memorised between 27 and 29, 27 and 29, 27 and 29; test
    accuracy .022, .007, .013 at the end, where 1/31 is .032.
    With --task.operation random: did not grok; memorised between 27 and 29, 27 and 29, 29 and 31;
    test accuracy .036, .021, .016.
    With --optimizer.learning-rate 1e-3: did not grok; training accuracy passes .99 at step 196,
    187, 188 (interpolated between snapshots); test accuracy .027, .010, .016.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="never_groks",
    task=ModularArithmetic(p=31, fraction=0.3),
    model=MLP(width=128, activation="quadratic"),
    optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0, b1=0.9, b2=0.98),
    steps=10_000,
    schedule=log_spaced(100),
    seeds=(0, 1, 2),
)
