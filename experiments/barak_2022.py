"""Hidden progress: a ReLU network learns the parity of 3 of 50 signs from fresh examples, and its
error falls all at once.

Question: does training show in the weights before it shows in the error?
Paper: Barak et al. 2022, arXiv 2207.08799: online SGD on the hinge loss, batches of 32, a ReLU
    network of 100 neurons.
Command: mi-jax run barak_2022
    Other sizes of the paper: --task.n 30 --task.k 4 and the like, --model.width, --task.batch-size.
Minutes: under 1 on 2 cores.
Printed, by seed 0, 1, 2:
    Some neuron weights all 3 signs that matter above all others (weight gap above 0) from step
    2,173, 983, 2,973 on.
    Test accuracy passes .6 at step 2,551, 1,755, 3,263 and .99 at step 3,093, 2,389, 3,789.
    The largest move of a first-layer weight (hidden progress; initial weights lie within .14)
    passes .1 at step 606, 683, 340 and ends at 1.48, 1.49, 1.49.
    Steps at which a curve passes a level are interpolated between snapshots, in log(step + 1).
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import SparseParity
from mi_jax.training import SGD, Hinge, every

experiment = Experiment(
    name="barak_2022",
    task=SparseParity(n=50, k=3, examples=None, batch_size=32, test_examples=1000),
    model=MLP(width=100, activation="relu", bias=True, outputs=1, initialization="torch"),
    optimizer=SGD(learning_rate=0.1),
    loss=Hinge(),
    steps=6_000,
    schedule=every(100),
    seeds=(0, 1, 2),
)
