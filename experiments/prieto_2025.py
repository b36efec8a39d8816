"""At the edge of numerical stability: without weight decay, the log-softmax in float32 saturates
before a network can grok.

Question: is it softmax collapse, with gradients that are exactly 0, that keeps a network without
    weight decay from grokking?
Paper: Prieto et al. 2025, arXiv 2501.04697: a ReLU network of two hidden layers without biases on
    addition, Adam without decay; here in a small setting of ours (p = 59 on 70 % of the pairs).
Command: mi-jax run prieto_2025
    StableMax: --loss.name stablemax --steps 4000. Orthogonal gradient: --optimizer.filter.name
    orthogonal_gradient --steps 300.
    The published task: --task.p 113 --task.fraction 0.4; with it StableMax takes --optimizer.b2
    0.999 --steps 80000, about .6 CPU-hours per seed, estimated from 10 steps, and the orthogonal
    gradient under 1 minute.
Minutes: about 1 per seed on 2 cores.
Printed, by seed 0, 1, 2:
    Training accuracy is 1 from step 39 on. At the end the softmax of .394, .152, .144 of the
    training answers is exactly one-hot (for seed 0 .574 at step 1,970), and test accuracy is .043,
    .023, .038.
    With StableMax, seeds 0 to 4, test accuracy passes .9 at step 2,059, 2,299, 2,089, 1,936, 1,842
    and .99 at 3,055, 3,859, 2,967, 2,909, 2,564: the median is 2,967, and training accuracy passes
    .99 at step 45. No training loss is 0 at step 2,230; .001 to .051 of them are at 3,166 and .98
    at step 4,000. So StableMax saturates too, but after the network has generalised.
    With the orthogonal gradient, seeds 0 to 4, test accuracy passes .99 at step 52, 58, 53, 51, 57:
    the median is 53, that of training accuracy 50, and nothing collapses.
    Steps at which accuracy passes a level are interpolated between snapshots, in log(step + 1).
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import Adam, LogSoftmaxCrossEntropy, log_spaced

experiment = Experiment(
    name="prieto_2025",
    task=ModularArithmetic(p=59, fraction=0.7, format="a b"),
    model=MLP(width=200, depth=2, activation="relu", initialization="torch"),
    optimizer=Adam(learning_rate=1e-2, b2=0.99, eps=1e-30),
    loss=LogSoftmaxCrossEntropy(),
    steps=3_500,
    schedule=log_spaced(60),
    seeds=(0, 1, 2),
)
