"""A training step against a PyTorch eager loop, TransformerLens, and the matrix products of its MLP
alone.

Keys of ``--json``; each is a ratio of times:
    p113_vs_torch: PyTorch, relative to ours, at p = 113.
    p113_vs_torch_last: the same, where PyTorch computes only the last position.
    p113_vs_transformer_lens: TransformerLens, relative to ours; null if it is not installed (see
        the README of this folder).
    p113_vs_matmul: our step, relative to the matrix products of its MLP, a lower bound.
    p113_table_vs_plain: our plain route, relative to the route on the token table.
    p59_vs_torch: PyTorch, relative to ours, at p = 59.
    quadratic_mlp_vs_torch: the same for the quadratic MLP, with one-hot inputs as published.
    quadratic_mlp_vs_torch_tables: the same, where PyTorch looks tokens up in tables.
    parity_vs_torch: the same for a sparse parity.
    parity_vmap_gain: 64 seeds one after another, relative to 64 seeds in one batched program.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import parity, rivals
from benchmarks.quadratic import profile
from benchmarks.timing import (
    PAIRS,
    Ratio,
    compared,
    cores,
    ours,
    product_peak,
    ratio,
    report,
    seconds,
)
from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.runs.library import find
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW

_STEPS = 20
_TINY_STEPS = 2_000
LENS = Path(
    os.environ.get(
        "TRANSFORMER_LENS_PYTHON", Path(__file__).parents[1] / ".venv-lens" / "bin" / "python"
    )
)
"""Python interpreter of a virtual environment that has TransformerLens."""


def _repeated(step: Callable[[], None], steps: int = _STEPS) -> Callable[[], object]:
    def run() -> None:
        for _ in range(steps):
            step()

    return run


def _transformer(experiment: Experiment, *, last: bool = False) -> Callable[[], object]:
    inputs, data, d = (
        experiment.task.inputs,
        experiment.task.data(0),
        _field(experiment.model, "d_model"),
    )
    rival = rivals.Transformer(
        inputs.vocabulary, inputs.vocabulary, inputs.positions, d, 4, 4 * d, last=last
    )
    return _repeated(rivals.training_step(rival, data.inputs, data.targets, *_rates(experiment)))


def _rates(experiment: Experiment) -> tuple[float, float]:
    return _field(experiment.optimizer, "learning_rate"), _field(
        experiment.optimizer, "weight_decay"
    )


def _field(settings: Any, name: str) -> Any:
    return getattr(settings, name)


def mlp_products(examples: int, d: int, width: int) -> Callable[[], object]:
    """A function that computes the six matrix products of an MLP, forward and backward, _STEPS
    times.
    """
    shapes = ((examples, d), (d, width), (width, d), (examples, d))
    arrays = [
        jax.random.normal(key, shape) / 30
        for key, shape in zip(jax.random.split(jax.random.key(0), 4), shapes, strict=True)
    ]

    @jax.jit
    def products(
        x: jax.Array, W_in: jax.Array, W_out: jax.Array, g: jax.Array
    ) -> tuple[jax.Array, ...]:
        def _step(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, W_in, W_out = carry
            hidden = x @ W_in
            out, back = hidden @ W_out, g @ W_out.T
            # Each product enters the next step, so that the compiler cannot remove any.
            return (
                back @ W_in.T + 1e-6 * out,
                W_in + 1e-6 * (x.T @ back),
                W_out + 1e-6 * (hidden.T @ g),
            )

        return jax.lax.fori_loop(0, _STEPS, _step, (x, W_in, W_out))

    return lambda: jax.block_until_ready(products(*arrays))


def step_flops(examples: int, d: int, width: int, outputs: int) -> float:
    """FLOP of a step on the token table: products of the MLP, W_O and W_U, forward and backward."""
    return 3 * 2 * examples * (2 * d * width + d * d + d * outputs)


def transformer_lens(our_steps: Callable[[], object]) -> Ratio | None:
    """Ratio to the same training in TransformerLens, run in a virtual environment of its own; None
    if there is no such environment.
    """
    if not LENS.exists():
        return None
    command = [str(LENS), str(Path(__file__).with_name("lens_loop.py")), str(_STEPS), str(cores())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def theirs() -> float:
            print("go", file=process.stdin, flush=True)
            return float(process.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]

        our_steps()
        theirs()
        taken = [(seconds(our_steps), theirs()) for _ in range(PAIRS)]
        process.stdin.close()
    return ratio(taken)


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    torch.set_num_threads(cores())
    say(
        f"threads: {cores()} for JAX, {torch.get_num_threads()} for PyTorch; {_STEPS} steps per"
        f" call, {PAIRS} alternating pairs"
    )
    p113, p59 = find("nanda_2023"), dataclasses.replace(find("grokking"), seeds=(0,))
    examples = len(np.asarray(p113.task.data(0).inputs))
    begin = time.perf_counter()
    step = ours(p113, _STEPS)
    step()
    say(f"p = 113: compiled and run in {time.perf_counter() - begin:.1f} s")
    ratios: dict[str, Ratio] = {}

    def keep(name: str, result: Ratio, calls: int = _STEPS) -> None:
        ratios[name] = result
        say(result.line(name, calls))

    keep("p113_vs_torch", compared(step, _transformer(p113)))
    keep("p113_vs_torch_last", compared(step, _transformer(p113, last=True)))
    keep("p113_vs_matmul", compared(mlp_products(examples, 128, 512), step))
    keep("p113_table_vs_plain", compared(step, ours(p113, _STEPS, route="plain")))
    lens = transformer_lens(step)
    if lens is None:
        say(
            f"p113_vs_transformer_lens: {LENS} does not exist. See benchmarks/README.md for how to"
            " make it."
        )
    else:
        keep("p113_vs_transformer_lens", lens)
    flops, peak = step_flops(examples, 128, 512, 114), product_peak(examples, 128, 512)
    reached = 1e-9 * flops * _STEPS / ratios["p113_vs_matmul"].theirs
    say(
        f"p = 113: {flops / 1e9:.2f} GFLOP of products per step, {reached:.0f} GFLOP/s of"
        f" {peak:.0f} at {examples} x 128 x 512"
    )

    keep("p59_vs_torch", compared(ours(p59, _STEPS), _transformer(p59)))
    task = ModularArithmetic(p=59, fraction=0.4)
    quadratic = Experiment(
        task=task, model=MLP(width=256), optimizer=AdamW(learning_rate=1e-2), seeds=(0,)
    )
    data = task.data(0)
    for name, one_hot in (
        ("quadratic_mlp_vs_torch", True),
        ("quadratic_mlp_vs_torch_tables", False),
    ):
        rival = rivals.QuadraticMLP(59, 256, one_hot=one_hot)
        step = rivals.training_step(rival, data.inputs, data.targets, *_rates(quadratic))
        keep(name, compared(ours(quadratic, 5 * _STEPS), _repeated(step, 5 * _STEPS)), 5 * _STEPS)
    parts = profile(data.inputs, data.targets, task.inputs.vocabulary, 256, task.p)
    say("  of a step, ms: " + "; ".join(f"{name} {taken:.2f}" for name, taken in parts.items()))
    tiny = rivals.parity_step(
        parity.N, parity.K, parity.WIDTH, parity.BATCH, parity.RATE, parity.DECAY
    )
    single = ours(parity.experiment(1), _TINY_STEPS)
    keep("parity_vs_torch", compared(single, _repeated(tiny, _TINY_STEPS)), _TINY_STEPS)
    many = [
        ours(parity.experiment(64), _TINY_STEPS, seed_mode=mode) for mode in ("vmapped", "mapped")
    ]
    keep("parity_vmap_gain", compared(many[0], many[1], 3), 64 * _TINY_STEPS)
    names = (
        "p113_vs_torch",
        "p113_vs_torch_last",
        "p113_vs_transformer_lens",
        "p113_vs_matmul",
        "p113_table_vs_plain",
    )
    names += (
        "p59_vs_torch",
        "quadratic_mlp_vs_torch",
        "quadratic_mlp_vs_torch_tables",
        "parity_vs_torch",
        "parity_vmap_gain",
    )
    return {name: ratios[name].median if name in ratios else None for name in names}


if __name__ == "__main__":
    sys.exit(report("training", measure, __doc__ or ""))
