"""Two circuits compete: a ReLU network on the parity of 3 of 40 signs memorises with all neurons
and generalises with a few.

Question: how many of the 1,000 neurons carry the answer before and after grokking?
Paper: Merrill et al. 2023, arXiv 2303.11873, as in its code: 1,000 examples, hinge loss, SGD 0.1 in
    batches of 32, L2 0.01, 300 epochs. Here each seed has examples of its own, and there are 1,000
    test examples in place of 100.
Command: mi-jax run merrill_2023
Minutes: under 2 on 2 cores. This is the published setting.
Printed, by seed 0 to 4:
    Test accuracy passes .99 at step 4,724, 4,252, 5,046, 3,638, 4,870, training accuracy passes .99
    at step 823, 691, 646, 866, 707 (interpolated between snapshots, in log(step + 1)).
    Effective sparsity at the end is 7, 6, 6, 14, 6 of 1,000 neurons (the paper: about 6); for
    seed 0 it is 892 at step 251 and 23 at step 4,891.
    Sensitivity at the end is 3, which is k, and test accuracy is 1, for all seeds.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import SparseParity
from mi_jax.training import SGD, Hinge, log_spaced

experiment = Experiment(
    name="merrill_2023",
    task=SparseParity(
        n=40, k=3, examples=1000, batch_size=32, test_examples=1000, split_per_seed=True
    ),
    model=MLP(
        width=1000,
        activation="relu",
        bias=True,
        output_bias=False,
        outputs=1,
        initialization="torch",
    ),
    optimizer=SGD(learning_rate=0.1, l2=0.01),
    loss=Hinge(),
    steps=9_600,
    schedule=log_spaced(60),
    seeds=(0, 1, 2, 3, 4),
)
