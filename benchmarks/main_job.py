"""The main job step by step, each in a process of its own: seconds and peak memory of training,
measuring and reporting.

The published p = 113 set-up, one seed, 200 snapshots, every measure; and reading 1,000 snapshots of
it, whose memory must not grow with their number. ``--json`` keys: train_seconds, measure_seconds,
report_seconds, seconds (of all three); train_megabytes, measure_megabytes, report_megabytes (the
most that the process held); megabytes_1000 (reading 1,000 snapshots, above the memory held before
the first is read).
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
    """Seconds and peak megabytes of a verb of the command line."""
    held: list[float] = []

    def run() -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "mi_jax.cli", *arguments], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, child.args)
        held.append(usage.ru_maxrss / 1024)

    return seconds(run), held[0]


def many_snapshots(folder: Path) -> float:
    """Megabytes that reading 1,000 snapshots takes above what was held before."""
    run = train(dataclasses.replace(find(_EXPERIMENT), steps=_MANY - 1, schedule=every(1)), folder)
    before = resident_megabytes()
    run.measure()
    return peak_megabytes() - before


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Every step of the main job by its key."""
    use_compile_cache()
    folder = Path(tempfile.mkdtemp())
    found: dict[str, float | None] = {}
    try:
        for name, start in _VERBS.items():
            took, held = verb_cost([*start, str(folder / "run"), "--quiet"])
            say(f"{name}: {took:.1f} s, at most {held:,.0f} MB")
            found |= {f"{name}_seconds": took, f"{name}_megabytes": held}
        found["seconds"] = sum(found[f"{name}_seconds"] or 0 for name in _VERBS)
        say(f"the main job in all: {found['seconds']:.0f} s")
        found["megabytes_1000"] = many_snapshots(folder / "many")
        say(f"reading {_MANY} snapshots: {found['megabytes_1000']:,.0f} MB above the start")
    finally:
        shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    sys.exit(report("main_job", measure, __doc__ or ""))
