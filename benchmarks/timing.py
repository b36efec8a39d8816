"""Fair timing: alternating pairs, the median and range of their ratios, memory, and a description
of the machine.
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
from mi_jax.training.state import Program

PAIRS = 7


class Ratio(NamedTuple):
    """Ratio theirs / ours of the times of two functions, over pairs of calls.

    Attributes:
        median: median of the ratios.
        low: smallest ratio.
        high: largest ratio.
        ours: median seconds per call of ours.
        theirs: median seconds per call of theirs.
    """

    median: float
    low: float
    high: float
    ours: float
    theirs: float

    def line(self, name: str, calls: int = 1, unit: str = "ms") -> str:
        """The ratio as one line of text; seconds are divided by ``calls``, the steps per call."""
        ours, theirs = (1000 * seconds / calls for seconds in (self.ours, self.theirs))
        return (
            f"{name}: {self.median:.2f} [{self.low:.2f}, {self.high:.2f}]   {ours:.3g} against"
            f" {theirs:.3g} {unit}"
        )


def ours(experiment: Experiment, steps: int, **mode: Any) -> Callable[[], object]:
    """A function that makes ``steps`` updates of all seeds with the compiled program."""
    program = Program(experiment.parts(**mode))
    state, numbers = program.init(), program.parts.numbers
    return lambda: jax.block_until_ready(program.advance(state, numbers, steps))


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call. The function must wait for its own results."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compared(ours: Callable[[], object], theirs: Callable[[], object], pairs: int = PAIRS) -> Ratio:
    """Ratio of theirs to ours over alternating pairs, after one call of each to compile."""
    ours()
    theirs()
    return ratio([(seconds(ours), seconds(theirs)) for _ in range(pairs)])


def ratio(taken: list[tuple[float, float]]) -> Ratio:
    """Ratio of pairs (our seconds, their seconds)."""
    ratios = sorted(b / a for a, b in taken)
    a, b = (statistics.median(side) for side in zip(*taken, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], a, b)


def cores() -> int:
    """Number of cores that this process may use, and of threads for both sides."""
    return len(os.sched_getaffinity(0))


def product_peak(rows: int, inner: int, columns: int) -> float:
    """Highest GFLOP/s of a matrix product of this shape in JAX, over 20 calls."""
    x, y = (
        jax.random.normal(jax.random.key(0), shape) for shape in ((rows, inner), (inner, columns))
    )
    product = jax.jit(lambda x, y: x @ y)
    jax.block_until_ready(product(x, y))
    best = min(seconds(lambda: jax.block_until_ready(product(x, y))) for _ in range(20))
    return 2e-9 * rows * inner * columns / best


def trained_seconds(experiment: Experiment) -> float:
    """Seconds of training, with writing, from after the first chunk, which includes compilation."""
    times: list[float] = []
    folder = tempfile.mkdtemp()
    try:
        train(experiment, folder, watch=lambda progress: times.append(time.perf_counter()))
    finally:
        shutil.rmtree(folder)
    return times[-1] - times[0]


def peak_megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_megabytes() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def use_compile_cache() -> None:
    """Keeps compiled programs in the user's cache folder, as the command line does."""
    keep_compiled(
        str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mi_jax" / "jax")
    )


def machine() -> dict[str, Any]:
    """Description of the machine and of the versions in use."""
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
    """Runs the command line of a benchmark.

    Args:
        name: name of the module in ``benchmarks``.
        measure: function of ``say``, which prints a line, that returns the flat result.
        about: description for ``--help``.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{name}",
        description=about,
        # Keeps the lines of the list of keys.
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one flat JSON object, and nothing else, to stdout",
    )
    parser.add_argument(
        "--save", action="store_true", help="write the result to benchmarks/results/"
    )
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    begin = time.perf_counter()
    results = {
        key: None if value is None else round(value, 4) for key, value in measure(say).items()
    }
    described = machine()
    say(
        f"{described}; peak memory {peak_megabytes():,.0f} MB; {time.perf_counter() - begin:.0f} s"
        " in total"
    )
    if options.save:
        stored = {**results, "machine": described, "lines": lines}
        (Path(__file__).parent / "results" / f"{name}.json").write_text(
            json.dumps(stored, indent=2) + "\n"
        )
    if options.json:
        print(json.dumps(results))
    return 0
