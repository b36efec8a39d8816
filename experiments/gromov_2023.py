"""Grokking by plain gradient descent: a quadratic MLP learns addition mod 59 exactly, without any
regularisation.

Question: does the network end near the solution that can be written down, where each neuron is a
    cosine of one frequency?
Paper: Gromov 2023, arXiv 2301.02679: full batch, squared error, no momentum, no weight decay; here
    in a smaller setting (p = 59, 256 neurons).
Command: mi-jax run gromov_2023
    The network of the paper, whose learning rate and steps are unknown: --task.p 97 --model.width
    500, about 2 CPU-minutes, estimated from 10 steps.
Minutes: about 1 on 2 cores.
Printed:
    Training accuracy passes .99 at step 872; test accuracy passes .99 at step 2,148 and is 1 from
    step 2,450 on.
    Steps at which accuracy passes a level are interpolated between snapshots, in log(step + 1).
    Inverse participation ratio, mean over neurons: .066 at step 0 (Gaussian weights: .066), .088 at
    step 880, .340 at step 2,155, .564 at the end (the written solution: 1). So generalisation comes
    with few frequencies per neuron, not yet with one.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import MSE, SGD, log_spaced

experiment = Experiment(
    name="gromov_2023",
    task=ModularArithmetic(p=59, fraction=0.5, format="a b"),
    model=MLP(width=256, activation="quadratic", initialization="doshi_2023"),
    optimizer=SGD(learning_rate=60.0),
    loss=MSE(),
    steps=6_000,
    schedule=log_spaced(60),
    seeds=(0,),
)
