"""From lazy to rich: the larger the scale of a network's output, the less its features move, and
the later it generalises.

Question: does grokking come from learning with fixed features first, and with moving features
    later?
Paper: Kumar et al. 2024, arXiv 2310.06110: gradient descent on the squared error without
    regularisation, at a learning rate that falls as 1 / scale^2; here on the parity of 2 of 40
    signs with 800 examples. The paper's own network, quadratic units with one output weight on
    polynomials, is not built here: no override gives its setting.
Command: mi-jax run lazy_to_rich
    Another scale: --model.output-scale 4 --optimizer.learning-rate 0.00625, which is 0.1 / scale^2.
Minutes: under 1 per scale on 2 cores.
Printed, medians of seeds 0 to 4 at scale .5, 1, 2, 4, 8:
    Training accuracy passes .9 at step 26, 48, 92, 193, 432; test accuracy passes .9 at step 32,
    68, 167, 584, and for one seed of five at 8 (step 1,724): 1.2, 1.4, 1.8 and 3 times later.
    Steps are interpolated between snapshots, in log(step + 1).
    The largest move of a first-layer weight is .76, .56, .41, .26, .15 at the end, where test
    accuracy is 1, 1, .999, .966, .862. A network that is too lazy fits the data and stops: its loss
    is used up before it becomes rich.
"""

from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import SparseParity
from mi_jax.training import MSE, SGD, log_spaced

experiment = Experiment(
    name="lazy_to_rich",
    task=SparseParity(n=40, k=2, examples=800, batch_size=None, test_examples=1000),
    model=MLP(
        width=200,
        activation="relu",
        bias=True,
        output_bias=False,
        outputs=1,
        initialization="torch",
        output_scale=2.0,
    ),
    optimizer=SGD(learning_rate=0.025),
    loss=MSE(),
    steps=5_000,
    schedule=log_spaced(100),
    seeds=(0, 1, 2, 3, 4),
)
