"""Honest comparison: interleaved pairs, the median of their ratios and its spread; what the machine
is and can do.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mi_jax import Experiment, train
from mi_jax.training.machine import use_compile_cache as keep_compiled

PAIRS = 7


class Ratio(NamedTuple):
    """How many times as long one thing takes as another: the median of the pairs' ratios, and the
    least and the most.
    """

    median: float
    low: float
    high: float
    ours: float
    """Median seconds of a call."""
    theirs: float

    def told(self, name: str, calls: int = 1, unit: str = "ms") -> str:
        """One line; seconds are divided by what a call did."""
        ours, theirs = (1000 * seconds / calls for seconds in (self.ours, self.theirs))
        return (
            f"{name}: {self.median:.2f} [{self.low:.2f}, {self.high:.2f}]   {ours:.3g} against"
            f" {theirs:.3g} {unit}"
        )


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, which must wait for its own results."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compared(ours: Callable[[], object], theirs: Callable[[], object], pairs: int = PAIRS) -> Ratio:
    """theirs / ours over interleaved pairs, after one call of each to compile and warm up."""
    ours()
    theirs()
    return ratio([(seconds(ours), seconds(theirs)) for _ in range(pairs)])


def ratio(taken: list[tuple[float, float]]) -> Ratio:
    """Of pairs (our seconds, their seconds)."""
    ratios = sorted(b / a for a, b in taken)
    a, b = (statistics.median(side) for side in zip(*taken, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], a, b)


def cores() -> int:
    """How many cores this process may use: the number of threads for both sides."""
    return len(os.sched_getaffinity(0))


def product_peak(rows: int, inner: int, columns: int) -> float:
    """The most GFLOP/s that JAX reaches in a product of this shape, of 20 calls."""
    x, y = (
        jax.random.normal(jax.random.key(0), shape) for shape in ((rows, inner), (inner, columns))
    )
    product = jax.jit(lambda x, y: x @ y)
    jax.block_until_ready(product(x, y))
    best = min(seconds(lambda: jax.block_until_ready(product(x, y))) for _ in range(20))
    return 2e-9 * rows * inner * columns / best


def trained_seconds(experiment: Experiment) -> float:
    """Seconds of training from after the first chunk, which compiles, to the end, everything
    written.
    """
    times: list[float] = []
    folder = tempfile.mkdtemp()
    try:
        train(experiment, folder, watch=lambda progress: times.append(time.perf_counter()))
    finally:
        shutil.rmtree(folder)
    return times[-1] - times[0]


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_megabytes() -> float:
    """The memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def use_compile_cache() -> None:
    """What the command line does for its own process: compiled programs are kept in the user's
    cache folder.
    """
    keep_compiled(
        str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mi_jax" / "jax")
    )


def machine() -> dict[str, Any]:
    """What was measured on."""
    model = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = {
        name: module.__version__
        for name in ("jax", "jaxlib", "torch")
        if (module := sys.modules.get(name))
    }
    return {
        "processor": model[0],
        "cores": cores(),
        "python": platform.python_version(),
        **versions,
    }


def report(
    name: str, measure: Callable[[Callable[[str], None]], Mapping[str, float | None]], about: str
) -> int:
    """Runs a benchmark's command line: ``measure(say)`` returns the flat result."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=about)
    parser.add_argument(
        "--json", action="store_true", help="one flat JSON object on stdout and nothing else there"
    )
    parser.add_argument(
        "--save", action="store_true", help="keep the result in benchmarks/results/"
    )
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    begin = time.perf_counter()
    found = {key: None if value is None else round(value, 4) for key, value in measure(say).items()}
    told = machine()
    say(
        f"{told}; peak memory {peak_megabytes():,.0f} MB; {time.perf_counter() - begin:.0f} s"
        " in all"
    )
    if options.save:
        kept = {**found, "machine": told, "lines": lines}
        (Path(__file__).parent / "results" / f"{name}.json").write_text(
            json.dumps(kept, indent=2) + "\n"
        )
    if options.json:
        print(json.dumps(found))
    return 0
