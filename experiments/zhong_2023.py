"""Clock or pizza: Zhong et al. 2023, addition mod 59 on tokens [a, b], with attention turned into
plain sums.

Question: which algorithm does a network without attention learn: clock (it adds angles) or pizza
    (it averages embeddings)?
Paper: arXiv 2306.17844, "Model A" (attention rate 0); Model B is --model.attention-rate 1. The
    paper trains 20,000 steps with a split drawn by an unseeded generator: --steps 20000, about .2
    CPU-hours, estimated from 10 steps.
Command: mi-jax run zhong_2023
Minutes: about 2 on 2 cores.
Printed: training accuracy passes .99 at step 86, test accuracy at 259 (interpolated between
    snapshots, in log(step + 1)); key frequencies 10 16 19 21; gradient symmetricity .992, distance
    irrelevance .272: a pizza (their Model A: .994 and .172); logit FVE .987; test loss 2.0e-7.
"""

from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="zhong_2023",
    task=ModularArithmetic(p=59, fraction=0.8, format="a b"),
    model=Transformer(
        d_model=128,
        heads=4,
        d_mlp=512,
        attention="bidirectional",
        attention_rate=0.0,
        initialization="zhong_2023",
    ),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=2.0, b1=0.9, b2=0.98, warmup=10),
    steps=3_000,
    schedule=log_spaced(100),
    seeds=(0,),
)
