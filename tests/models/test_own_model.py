"""Tests of the model in docs/own_model.md, copied to a file outside the package: it is trained,
resumed and measured.
"""

import re
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mi_jax
from mi_jax.basics.errors import Interrupted
from mi_jax.measures import MEASURES
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.library import find
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train

_CODE = re.search(
    r"```python\n(.*?)```",
    (Path(__file__).parents[2] / "docs" / "own_model.md").read_text(),
    re.DOTALL,
)
_SMALL = (
    ("p=31", "p=11"),
    ("steps=1_000", "steps=60"),
    ("log_spaced(60)", "log_spaced(12)"),
    ("width: int = 128", "width: int = 24"),
)


@pytest.fixture
def cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of that file, with smaller numbers."""
    assert _CODE is not None
    code = _CODE[1]
    for old, new in _SMALL:
        assert old in code
        code = code.replace(old, new)
    (tmp_path / "cosine.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cosine", raising=False)
    import cosine  # pyright: ignore[reportMissingImports]

    yield cosine
    sys.modules.pop("cosine", None)


def test_it_is_short_and_uses_what_is_public() -> None:
    assert _CODE is not None
    assert len(_CODE[1].splitlines()) < 50
    imported = set(re.findall(r"^from (mi_jax\S*) import", _CODE[1], re.MULTILINE))
    assert imported <= {"mi_jax", *(f"mi_jax.{name}" for name in mi_jax.__all__)}


def test_it_trains_resumes_to_the_same_bits_and_is_measured_through_its_roles(
    cosine: Any, tmp_path: Path
) -> None:
    record = cosine.experiment.to_json()
    assert record["model"]["type"] == "cosine:CosineMLP"
    experiment = Experiment.from_json(record)
    assert experiment == cosine.experiment
    run = train(experiment, tmp_path / "run")

    left = [signal.SIGINT]

    def stop(progress: Any) -> None:
        while left and progress.step >= 20:
            signal.raise_signal(left.pop())

    with pytest.raises(Interrupted):
        train(experiment, tmp_path / "stopped", watch=stop)
    assert 0 < open_run(tmp_path / "stopped").trajectories[0].done < experiment.steps
    resumed = train(experiment, tmp_path / "stopped")
    for ours, theirs in zip(
        jax.tree.leaves(resumed.stack()), jax.tree.leaves(run.stack()), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()

    names = [
        "fourier_power_embedding",
        "key_frequencies",
        "neuron_fve",
        "inverse_participation_ratio",
        "test_accuracy",
    ]
    dataset = mi_jax.measure(open_run(run.path), names)
    params = run.params(60)
    both = np.concatenate([params["W_a"], params["W_b"]], axis=1).astype(np.float64)
    power = (np.abs(np.fft.rfft(both, axis=0))[1:] ** 2).sum(axis=1)
    read = dataset["fourier_power_embedding"].isel(seed=0).sel(step=60)
    np.testing.assert_allclose(read, power / power.sum(), rtol=1e-4)
    assert dataset["neuron_fve"].shape == (1, len(run.steps), 24)
    lacking = MEASURES["attention_fve"].missing(
        experiment.build().roles, frozenset({"table", "residues"}), frozenset()
    )
    assert lacking == "needs the model's role 'attention'"


@pytest.mark.slow
def test_it_groks_as_it_stands(tmp_path: Path) -> None:
    assert _CODE is not None
    (tmp_path / "cosine.py").write_text(_CODE[1])
    run = train(find(str(tmp_path / "cosine.py")), tmp_path / "run")
    assert (
        float(mi_jax.measure(run, ["test_accuracy"])["test_accuracy"].isel(step=-1).squeeze())
        > 0.99
    )
