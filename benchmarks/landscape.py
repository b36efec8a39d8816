"""The learning coefficient over the demo run, and against devinterp 1.3.2 and canonical-interp on
the grokking MLP of devinterp's demo.

The MLP: p = 53, a shared embedding of width 12, two linear maps to 48 hidden units whose outputs
are summed, GELU, and an unembedding; trained with Adam on 40 % of the pairs. Both sides sample from
the same weights over the same full batch, with the same step size, localisation, n_beta, chains,
draws, threads and baseline loss. The loader of devinterp is torch's own over a TensorDataset, as in
its demo; "in memory" gives it the whole batch instead, so that only its chains are timed.

The demo run has one seed and 100 checkpoints, and is read by the measure with its default options:
4 chains of 150 draws after 50 steps of burn-in.

Keys of ``--json``; all but the first two are null if devinterp is not installed:
    llc_100_seconds, llc_100_cpu_seconds: seconds for the demo run, compiled and written.
    vs_devinterp: time per chain-step of devinterp, relative to ours.
    vs_devinterp_in_memory: the same, in memory.
    vs_canonical: the same for canonical-interp; null if it is not installed.
    microseconds: microseconds per chain-step of ours.
    ours, ours_se, theirs, theirs_se: estimates and their standard errors.
    sigmas: difference of both estimates, in combined standard errors.
"""

import dataclasses
import importlib.util
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import cores, ratio, report, seconds
from mi_jax import train
from mi_jax.landscape import SGLDSettings, diagnose, learning_coefficient
from mi_jax.runs.library import find
from mi_jax.training import log_spaced

P, D, HIDDEN = 53, 12, 48
N_BETA, GAMMA, EPSILON = 2.0, 5.0, 3e-3
CHAINS, BURN_IN, DRAWS = 4, 100, 300
TIMED, PAIRS = 40, 5

Params = dict[str, jax.Array]


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """The training pairs [n 2] and their sums mod p [n]."""
    table = np.stack(np.meshgrid(np.arange(P), np.arange(P), indexing="ij"), axis=-1).reshape(-1, 2)
    chosen = np.random.default_rng(0).permutation(len(table))[: int(0.4 * len(table))]
    return table[chosen], table[chosen].sum(axis=1) % P


def loss(params: Params, data: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean cross-entropy in nats. The linear maps are applied to the 53 embeddings once, and each
    pair looks up its two rows.
    """
    inputs, targets = data
    left, right = (params["embed"] @ params[name] for name in ("left", "right"))
    hidden = left[inputs[:, 0]] + right[inputs[:, 1]] + params["bias"]
    logits = jax.nn.gelu(hidden, approximate=False) @ params["out"]
    correct = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(logits, axis=1) - correct).mean()


def trained(data: tuple[jax.Array, jax.Array], steps: int = 3000) -> Params:
    """Parameters after the training of the demo: Adam 5e-3, decay 2e-4, batches of 128."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"embed": (P, D), "left": (D, HIDDEN), "right": (D, HIDDEN), "out": (HIDDEN, P)}
    params = {
        name: jax.random.normal(key, s) / s[0] ** 0.5
        for key, (name, s) in zip(keys, shapes.items(), strict=True)
    }
    params |= {"embed": params["embed"] * P**0.5, "bias": jnp.zeros(HIDDEN)}
    optimizer = optax.chain(optax.add_decayed_weights(2e-4), optax.adam(5e-3))

    def _step(carry: Any, key: Any) -> tuple[Any, None]:
        params, state = carry
        rows = jax.random.randint(key, (128,), 0, len(data[0]))
        updates, state = optimizer.update(
            jax.grad(loss)(params, (data[0][rows], data[1][rows])), state, params
        )
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    return jax.jit(
        lambda c: jax.lax.scan(_step, c, jax.random.split(jax.random.key(1), steps))[0][0]
    )(start)


def in_torch(params: Params) -> Any:
    """The same network and weights in PyTorch, written in the usual way."""
    import torch
    from torch import nn

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(P, D)
            self.left, self.right = (
                nn.Linear(D, HIDDEN, bias=True),
                nn.Linear(D, HIDDEN, bias=False),
            )
            self.gelu, self.out = nn.GELU(), nn.Linear(HIDDEN, P, bias=False)

        def forward(self, x: Any) -> Any:
            return self.out(
                self.gelu(self.left(self.embed(x[..., 0])) + self.right(self.embed(x[..., 1])))
            )

    model = MLP()
    arrays = {name: np.array(value) for name, value in params.items()}
    state = {
        "embed.weight": arrays["embed"],
        "left.weight": arrays["left"].T,
        "left.bias": arrays["bias"],
        "right.weight": arrays["right"].T,
        "out.weight": arrays["out"].T,
    }
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return model


def loader(inputs: np.ndarray, targets: np.ndarray, *, in_memory: bool) -> Any:
    """Loader of full batches: collated by torch, or, in memory, the same tensors each time."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.tensor(inputs), torch.tensor(targets)

    class Whole(DataLoader[Any]):
        def __iter__(self) -> Any:
            return iter([(x, y)])

    kind = Whole if in_memory else DataLoader
    return kind(TensorDataset(x, y), batch_size=len(x), shuffle=True, drop_last=True)


def devinterp(model: Any, batches: Any, baseline: float, burn_in: int, draws: int) -> np.ndarray:
    """Loss trace [chain draw] of devinterp."""
    import torch
    from devinterp.optim.sgld import SGLD
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

    def evaluate(model: Any, data: Any) -> Any:
        x, y = data
        return torch.nn.functional.cross_entropy(model(x), y), {}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = estimate_learning_coeff_with_summary(
            model,
            batches,
            evaluate=evaluate,
            sampling_method=SGLD,
            optimizer_kwargs={"lr": EPSILON, "localization": GAMMA, "nbeta": N_BETA},
            num_draws=draws,
            num_chains=CHAINS,
            num_burnin_steps=burn_in,
            init_loss=baseline,
            device=torch.device("cpu"),
            online=True,
            seed=0,
            verbose=False,
        )
    return np.asarray(summary["loss/trace"])


def canonical(model: Any, batches: Any) -> Callable[[], object]:
    """A function that makes TIMED draws with the batched chains of canonical-interp.

    They are not compiled, because its compilation takes minutes.
    """
    import itertools
    import logging

    def batched(items: Any, n: int) -> Any:
        rest = iter(items)
        return iter(lambda: tuple(itertools.islice(rest, n)), ())

    # canonical-interp needs itertools.batched, which Python has from 3.12 on.
    vars(itertools).setdefault("batched", batched)
    from canonical_interp.slt import LLCEstimator

    logging.disable(logging.WARNING)
    options = {"draws": TIMED, "chains": CHAINS, "burnin_steps": 0, "steps_bw_draws": 1}
    sampler = LLCEstimator(**options, learning_rate=EPSILON, localization=GAMMA, nbeta=N_BETA)
    return lambda: sampler.estimate_llc(model, batches, seed=0, compile=False, show_progress=False)


def ours(params: Params, data: Any, burn_in: int, draws: int) -> Any:
    """Our estimate from the same weights and data."""
    settings = SGLDSettings(
        n_beta=N_BETA,
        gamma=GAMMA,
        epsilon=EPSILON,
        burn_in=burn_in,
        draws=draws,
        chains=CHAINS,
    )
    estimate = learning_coefficient(
        loss, params, n=len(data[0]), settings=settings, key=jax.random.key(2), data=data
    )
    return jax.block_until_ready(estimate)


def over_the_demo_run(say: Callable[[str], None]) -> dict[str, float | None]:
    """Results for the learning coefficient of 100 checkpoints, by their keys."""
    folder = Path(tempfile.mkdtemp())
    try:
        run = train(
            dataclasses.replace(find("grokking"), seeds=(0,), schedule=log_spaced(100)),
            folder / "demo",
        )
        begun = time.process_time()
        taken = seconds(lambda: run.measure(["learning_coefficient"]))
        used = time.process_time() - begun
    finally:
        shutil.rmtree(folder)
    say(
        f"{len(run.steps)} checkpoints of the demo run: {taken:.0f} s, {used:.0f} CPU-seconds,"
        " compiled and written"
    )
    return {"llc_100_seconds": taken, "llc_100_cpu_seconds": used}


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    demo = over_the_demo_run(say)
    if importlib.util.find_spec("devinterp") is None:
        say(
            "devinterp is not installed. Run pip install torch==2.13.0 devinterp==1.3.2 in an"
            " environment of its own."
        )
        return demo | dict.fromkeys(_AGAINST)
    return demo | against_devinterp(say)


_AGAINST = (
    "vs_devinterp",
    "vs_devinterp_in_memory",
    "vs_canonical",
    "microseconds",
    "ours",
    "ours_se",
    "theirs",
    "theirs_se",
    "sigmas",
)


def against_devinterp(say: Callable[[str], None]) -> dict[str, float | None]:
    """Results of the comparisons, by their keys."""
    import torch

    torch.set_num_threads(cores())
    inputs, targets = pairs()
    data = (jnp.asarray(inputs), jnp.asarray(targets))
    params = trained(data)
    model, memory, usual = (
        in_torch(params),
        *(loader(inputs, targets, in_memory=flag) for flag in (True, False)),
    )
    baseline = float(loss(params, data))
    with torch.no_grad():
        theirs = float(
            torch.nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(targets))
        )
    say(
        f"n = {len(inputs)}, loss {baseline:.6f} here, {theirs:.6f} there; {CHAINS} chains,"
        f" {cores()} threads each"
    )

    steps = TIMED * CHAINS
    rivals: dict[str, Callable[[], object]] = {
        "devinterp 1.3.2": lambda: devinterp(model, usual, baseline, 0, TIMED),
        "the same, in memory": lambda: devinterp(model, memory, baseline, 0, TIMED),
    }
    if importlib.util.find_spec("canonical_interp") is not None:
        rivals["canonical-interp 0.1.5, in memory"] = canonical(model, memory)
    # Eight calls, which together take long enough to time.
    mine = lambda: [ours(params, data, 0, TIMED) for _ in range(8)]  # noqa: E731
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for run in (mine, *rivals.values()):
        run()
    for _ in range(PAIRS):
        for name, run in rivals.items():
            times[name].append((seconds(mine) / 8, seconds(run)))
    ratios = {name: ratio(taken) for name, taken in times.items()}
    for name, timed in ratios.items():
        say(timed.line(f"{name}, times as long per chain-step", steps, "ms"))

    here = ours(params, data, BURN_IN, DRAWS)
    trace = devinterp(model, memory, baseline, BURN_IN, DRAWS)
    there, error = (
        N_BETA * (float(trace.mean()) - baseline),
        N_BETA * float(diagnose(jnp.asarray(trace - baseline)).standard_error),
    )
    value, value_se = float(here.learning_coefficient), float(here.standard_error)
    sigmas = abs(value - there) / math.hypot(value_se, error)
    say(
        f"learning coefficient {value:.3f} +- {value_se:.3f} here, {there:.3f} +- {error:.3f}"
        f" there: {sigmas:.1f} errors apart"
    )
    canonical_ratio = ratios.get("canonical-interp 0.1.5, in memory")
    return {
        "vs_devinterp": ratios["devinterp 1.3.2"].median,
        "vs_devinterp_in_memory": ratios["the same, in memory"].median,
        "vs_canonical": canonical_ratio.median if canonical_ratio else None,
        "microseconds": 1e6 * ratios["devinterp 1.3.2"].ours / steps,
        "ours": value,
        "ours_se": value_se,
        "theirs": there,
        "theirs_se": error,
        "sigmas": sigmas,
    }


if __name__ == "__main__":
    sys.exit(report("landscape", measure, __doc__ or ""))
