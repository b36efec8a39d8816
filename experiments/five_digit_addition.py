"""Addition of two five-digit numbers from fresh examples: a one-layer transformer learns its
digits one after another.

Question: is the fall of each digit's loss a phase change of its own, although no example is seen
    twice?
Paper: Nanda et al. 2023, arXiv 2301.05217, where the loss goes from 2.59 to 1.47 at step 1,000, .17
    at 2,000 and .04 at 3,000; Quirke and Barez 2024, arXiv 2310.13121, on carries.
Command: mi-jax run five_digit_addition
Minutes: about 2 on 2 cores. The sizes are the published ones.
Printed:
    The loss is 2.66 at step 0, .215 at 971, .038 at 1,910, .030 at 3,000. It falls sooner than in
    the paper, whose weight decay and batch size are unknown.
    The loss of the digits of the answer, the most significant first, passes .5 at step 82, 484,
    895, 938, 726, 682: six falls, with units before tens and hundreds last.
    At the end all six digits are right for .943 of the test pairs, and for .234 of those whose
    carry travels through every place. The latter still rises and falls by tenths from one snapshot
    to the next.
"""

from mi_jax import Experiment
from mi_jax.models import Transformer
from mi_jax.tasks import MultiDigitAddition
from mi_jax.training import AdamW, log_spaced

experiment = Experiment(
    name="five_digit_addition",
    task=MultiDigitAddition(digits=5, batch_size=64),
    model=Transformer(d_model=128, heads=4, d_mlp=512),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=0.1, warmup=10),
    steps=3_000,
    schedule=log_spaced(60),
    seeds=(0,),
)
