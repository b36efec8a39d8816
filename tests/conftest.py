"""What the tests share: strictness, a compile cache, a small trained run, and where published
weights are.
"""

import gc
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
# Set before jax is imported, so that child processes have them too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import jax  # noqa: E402

from mi_jax.contracts import Inputs, Model  # noqa: E402
from mi_jax.models import MLP, Transformer  # noqa: E402
from mi_jax.runs.experiment import Experiment  # noqa: E402
from mi_jax.runs.run import Run  # noqa: E402
from mi_jax.runs.train import train  # noqa: E402
from mi_jax.tasks import ModularArithmetic  # noqa: E402
from mi_jax.training import AdamW, Storage, at, log_spaced  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish() -> None:
    """What is imported and collected stays: out of the collector's sight, whose every pass would
    walk through it.
    """
    gc.collect()
    gc.freeze()


_PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published weights, which is not part of the repository."""
    if not _PUBLISHED.is_dir():
        pytest.skip("the published weights (../shared/published) are not here")
    return _PUBLISHED


def few(cases: Iterable[Any], keep: int) -> list[Any]:
    """Cases of a parametrised test (tuples: of several arguments): at most ``keep``, evenly spread,
    are tested always, the others with the slow ones.
    """
    every = list(cases)
    step = -(-len(every) // keep)
    marks = [() if place % step == 0 else (pytest.mark.slow,) for place in range(len(every))]
    return [
        pytest.param(*case if isinstance(case, tuple) else (case,), marks=mark)
        for case, mark in zip(every, marks, strict=True)
    ]


VECTOR = Inputs("floats", vocabulary=0, positions=1, classes=2, alphabet=(), features=7)
"""A task of two classes on seven numbers."""


def noisy_params(model: Model, seed: int = 0) -> Any:
    """Initial parameters with noise on everything, so that no bias is zero."""
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return structure.unflatten(
        [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    )


def tiny_experiment(**changes: object) -> Experiment:
    """Addition mod 11 on a transformer of a few thousand parameters: 60 steps take a second, most
    of it compiling.
    """
    settings: dict[str, object] = {
        "task": ModularArithmetic(p=11, fraction=0.5),
        "model": Transformer(d_model=16, heads=2, d_mlp=32),
        "optimizer": AdamW(learning_rate=3e-3, warmup=3),
        "steps": 60,
        "schedule": log_spaced(12),
        "seeds": (0, 1, 2),
        "name": "tiny",
    }
    return Experiment(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def tiny_mlp_experiment(**changes: object) -> Experiment:
    """The same on a quadratic MLP."""
    return tiny_experiment(
        **{"model": MLP(width=24), "optimizer": AdamW(learning_rate=1e-2), **changes}
    )


SEGMENTED = tiny_mlp_experiment(
    task=ModularArithmetic(p=7, fraction=0.5),
    model=MLP(width=8),
    optimizer=AdamW(learning_rate=1e-2, warmup=1),
    steps=24,
    schedule=at(3, 11, 20),
    storage=Storage(states=3),
    seeds=(0, 1),
)
"""Segments end at 8, 16 and 24; snapshots are at 0, 3, 11, 20 and 24."""


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of ``SEGMENTED``: read it, never write to it."""
    return train(SEGMENTED, tmp_path_factory.mktemp("runs") / "segmented").path


@pytest.fixture
def copy(segmented: Path, tmp_path: Path) -> Path:
    """A copy of ``segmented`` to harm."""
    return shutil.copytree(segmented, tmp_path / "copy")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of ``tiny_experiment``: read it, never write to it."""
    return train(tiny_experiment(), tmp_path_factory.mktemp("runs") / "tiny")
