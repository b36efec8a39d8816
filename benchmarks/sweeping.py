"""Phase diagram of ``experiments/liu_2022``: 5 learning rates, 5 decays and 3 seeds, from training
to the figure.

Keys of ``--json``:
    seconds: seconds of the whole sweep.
    runs: number of runs, one per seed.
    verdicts: how many different verdicts there are on the seeds, by the rule of the paper.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.timing import cores, report, seconds
from mi_jax import sweep
from mi_jax.dynamics import LIU_2022
from mi_jax.runs.library import find

RATES, DECAYS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.0, 0.1, 1.0, 5.0, 20.0)


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """Results by their keys."""
    folder, summaries = Path(tempfile.mkdtemp()), []
    axes = {"optimizer.learning_rate": RATES, "optimizer.weight_decay": DECAYS}
    try:
        took = seconds(
            lambda: summaries.append(sweep(find("liu_2022"), axes, folder / "sweep", rule=LIU_2022))
        )
    finally:
        shutil.rmtree(folder)
    verdicts = summaries[0]["verdict"].values.astype(str)
    kinds, counts = np.unique(verdicts, return_counts=True)
    listed = ", ".join(f"{kind} {count}" for kind, count in zip(kinds, counts, strict=True))
    say(f"{len(RATES)} x {len(DECAYS)} x 3 runs on {cores()} cores: {took:.0f} s; seeds: {listed}")
    return {"seconds": took, "runs": float(verdicts.size), "verdicts": float(len(kinds))}


if __name__ == "__main__":
    sys.exit(report("sweeping", measure, __doc__ or ""))
