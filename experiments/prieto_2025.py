"""At the edge of numerical stability: without weight decay, float32's log-softmax runs dry before a network can grok.

Question: is it softmax collapse, gradients that are exactly 0, that keeps a network without weight decay from grokking?
Paper: Prieto et al. 2025, arXiv 2501.04697: a ReLU network of two hidden layers without biases on addition, Adam without decay;
in a small setting of ours (p = 59 on 70 % of the pairs in place of 113 on 40 %, where StableMax is trained 80,000 steps).
Command: mi-jax run prieto_2025
StableMax: --loss.name stablemax --steps 4000. Orthogonal gradient: --optimizer.filter.name orthogonal_gradient --steps 300.
Minutes: about 1 a seed on 2 cores.
Printed, by seed 0, 1, 2: training accuracy is 1 from step 39 on; at the end the softmax of .394, .152, .144 of the training
answers is exactly one-hot (of seed 0 .574 at step 1,970), and test accuracy is .043, .023, .038. With StableMax, seed 0, test
accuracy passes .9 at step 2,059 and .99 at 3,055. With the orthogonal gradient it passes .99 at step 52, 58, 53 of seeds 0, 1,
2, and nothing collapses.
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
