"""Grokking as it was discovered: division modulo a prime, trained on six tenths of the pairs.

Question: does the test accuracy of division rise long after the training accuracy is 1?
Paper: Power et al. 2022, arXiv 2201.02177, with the split of its code; here a network without
    norms, one layer and p = 59 in place of two layers and 97. The loss is over the answer alone.
Command: mi-jax run power_2022
    Nearest to the paper, which puts norms after the blocks and has sine positions, and not run
    here: --task.p 97 --task.fraction 0.5 --task.batch-size 512 --model.layers 2 --model.d-model 128
    --model.d-mlp 512 --model.normalization layer --optimizer.learning-rate 1e-3 --steps 100000,
    about 1.4 CPU-hours per seed, estimated from 10 steps.
Minutes: 4 on 2 shared cores.
Printed: training accuracy passes .99 at step 144, test accuracy passes .9 at step 779 and .99 at
    1,099, eight times later; it is .996 at the end.
    Steps at which accuracy passes a level are interpolated between snapshots, in log(step + 1).
"""

from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="power_2022",
    task=ModularArithmetic(
        p=59, operation="divide", fraction=0.6, split="power_2022", format="a op b = c"
    ),
    model=Transformer(d_model=64, d_mlp=256),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=1.0, warmup=10),
    steps=6_000,
    schedule=log_spaced(60),
    seeds=(0,),
)
