"""Cost against size: seconds of training against steps and seeds, and of reading against snapshots,
at three sizes each.

Keys of ``--json``: ``steps_exponent``, ``seeds_exponent``, ``snapshots_exponent``, the slope of log
seconds (the median of three runs) against log size; 1 is linear.
"""

import dataclasses
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.timing import report, trained_seconds, use_compile_cache
from mi_jax import train
from mi_jax.runs.library import find
from mi_jax.training import at, every

_BASE = dataclasses.replace(find("grokking"), seeds=(0,), steps=800, schedule=at(0))


def measuring_seconds(snapshots: int) -> float:
    """Seconds of reading, from after the first segment, which includes compilation."""
    folder = tempfile.mkdtemp()
    try:
        storage = dataclasses.replace(_BASE.storage, snapshots=snapshots // 2)
        run = train(
            dataclasses.replace(_BASE, steps=snapshots, schedule=every(1), storage=storage), folder
        )
        times: list[float] = []
        run.measure(watch=lambda done, total: times.append(time.perf_counter()))
    finally:
        shutil.rmtree(folder)
    return times[-1] - times[0]


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    use_compile_cache()
    sizes: dict[str, tuple[tuple[int, ...], Callable[[int], float]]] = {
        "steps": (
            (1500, 3000, 6000),
            lambda n: trained_seconds(dataclasses.replace(_BASE, steps=n)),
        ),
        "seeds": (
            (1, 2, 4),
            lambda n: trained_seconds(
                dataclasses.replace(_BASE, steps=1500, seeds=tuple(range(n)))
            ),
        ),
        "snapshots": ((128, 256, 512), measuring_seconds),
    }
    exponents: dict[str, float | None] = {}
    for name, (counts, cost) in sizes.items():
        cost(counts[0])
        taken = [statistics.median(cost(n) for _ in range(3)) for n in counts]
        slope, _ = np.polyfit(np.log(counts), np.log(taken), 1)
        say(
            f"{name}: {', '.join(f'{n}: {t:.2f} s' for n, t in zip(counts, taken, strict=True))};"
            f" exponent {slope:.2f}"
        )
        exponents[f"{name}_exponent"] = float(slope)
    return exponents


if __name__ == "__main__":
    sys.exit(report("scaling", measure, __doc__ or ""))
