"""The main job: seconds and peak memory of training, measuring and reporting, each in a process of
its own.

The job is the published p = 113 set-up with one seed, 200 snapshots and every default measure. In
addition 1,000 snapshots are read, whose memory must not grow with their number.

Keys of ``--json``:
    train_seconds, measure_seconds, report_seconds: seconds of each step.
    seconds: sum of the three.
    train_megabytes, measure_megabytes, report_megabytes: peak memory of each process.
    megabytes_1000: memory for reading 1,000 snapshots, above that before the first is read.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.timing import peak_megabytes, report, resident_megabytes, seconds, use_compile_cache
from mi_jax import train
from mi_jax.runs.library import find
from mi_jax.training import every

_EXPERIMENT = "nanda_2023"
_VERBS = {"train": ("train", _EXPERIMENT, "--out"), "measure": ("measure",), "report": ("report",)}
_MANY = 1000


def verb_cost(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a command of the command line."""
    peaks: list[float] = []

    def run() -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "mi_jax.cli", *arguments], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, child.args)
        peaks.append(usage.ru_maxrss / 1024)

    # ``seconds`` is called first, and fills ``peaks``.
    return seconds(run), peaks[0]


def many_snapshots(folder: Path) -> float:
    """Megabytes for reading 1,000 snapshots, above the memory before."""
    run = train(dataclasses.replace(find(_EXPERIMENT), steps=_MANY - 1, schedule=every(1)), folder)
    before = resident_megabytes()
    run.measure()
    return peak_megabytes() - before


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    use_compile_cache()
    folder = Path(tempfile.mkdtemp())
    results: dict[str, float | None] = {}
    try:
        for name, start in _VERBS.items():
            took, peak = verb_cost([*start, str(folder / "run"), "--quiet"])
            say(f"{name}: {took:.1f} s, at most {peak:,.0f} MB")
            results |= {f"{name}_seconds": took, f"{name}_megabytes": peak}
        results["seconds"] = sum(results[f"{name}_seconds"] or 0 for name in _VERBS)
        say(f"the main job in total: {results['seconds']:.0f} s")
        results["megabytes_1000"] = many_snapshots(folder / "many")
        say(f"reading {_MANY} snapshots: {results['megabytes_1000']:,.0f} MB above the start")
    finally:
        shutil.rmtree(folder)
    return results


if __name__ == "__main__":
    sys.exit(report("main_job", measure, __doc__ or ""))
