"""The phase diagram of ``experiments/liu_2022``: 5 learning rates, 5 decays, 3 seeds, from nothing
to the figure.

``--json`` keys: seconds, runs (seeds counted), regimes (how many of the four appear).
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.timing import cores, report, seconds
from mi_jax import sweep
from mi_jax.runs.library import find

RATES, DECAYS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.0, 0.1, 1.0, 5.0, 20.0)


def measure(say: Callable[[str], None]) -> Mapping[str, float | None]:
    """The sweep, timed."""
    folder, found = Path(tempfile.mkdtemp()), []
    axes = {"optimizer.learning_rate": RATES, "optimizer.weight_decay": DECAYS}
    try:
        took = seconds(lambda: found.append(sweep(find("liu_2022"), axes, folder / "sweep")))
    finally:
        shutil.rmtree(folder)
    kinds, counts = np.unique(found[0]["regime"].values, return_counts=True)
    told = ", ".join(f"{kind} {count}" for kind, count in zip(kinds, counts, strict=True))
    say(f"{len(RATES)} x {len(DECAYS)} x 3 runs on {cores()} cores: {took:.0f} s; seeds: {told}")
    return {"seconds": took, "runs": float(found[0]["regime"].size), "regimes": float(len(kinds))}


if __name__ == "__main__":
    sys.exit(report("sweeping", measure, __doc__ or ""))
