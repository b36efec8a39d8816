"""Training step of Nanda et al. in TransformerLens. ``benchmarks.training`` runs it in an
environment that has TransformerLens.

Usage: ``lens_loop.py STEPS THREADS``. For each line of input it takes STEPS steps and prints their
seconds.
"""

import random
import sys
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

steps, threads = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
p = 113
config = HookedTransformerConfig(
    n_layers=1,
    n_heads=4,
    d_model=128,
    d_head=32,
    d_mlp=512,
    act_fn="relu",
    normalization_type=None,
    d_vocab=p + 1,
    d_vocab_out=p,
    n_ctx=3,
    init_weights=True,
    device="cpu",
    seed=999,
)
model = HookedTransformer(config)
for name, parameter in model.named_parameters():
    if "b_" in name:
        parameter.requires_grad = False
pairs = [(i, j, p) for i in range(p) for j in range(p)]
random.seed(0)
random.shuffle(pairs)
tokens = torch.tensor(pairs[: int(0.3 * p * p)])
labels = (tokens[:, 0] + tokens[:, 1]) % p
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))

for _ in sys.stdin:
    begin = time.perf_counter()
    for _ in range(steps):
        logits = model(tokens)[:, -1].to(torch.float64)
        loss = -logits.log_softmax(dim=-1).gather(dim=-1, index=labels[:, None])[:, 0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(time.perf_counter() - begin, flush=True)
