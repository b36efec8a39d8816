"""Each loss says which outputs it takes; one that cannot take a model's is refused before
training.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError
from mi_jax.contracts import Loss
from mi_jax.interventions import Change
from mi_jax.models import MLP
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.fork import fork
from mi_jax.runs.train import train
from mi_jax.tasks import SparseParity
from mi_jax.training import LOSSES, CrossEntropy, Hinge, StableMax, every
from mi_jax.training.program_schedule import ProgramSchedule

_KINDS = [*(make() for make in LOSSES.values()), StableMax(exact=True)]


@pytest.mark.parametrize("loss", _KINDS, ids=str)
@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_loss_takes_the_outputs_for_which_every_class_has_a_finite_loss(
    loss: Loss, outputs: int, classes: int
) -> None:
    z = jnp.asarray(np.random.default_rng(0).normal(size=(classes, 1, outputs)), jnp.float32)
    targets = jnp.arange(classes)[:, None]
    value, gradient = jax.value_and_grad(lambda z: loss(z, targets).sum())(z)
    finite = bool(jnp.isfinite(value)) and bool(jnp.isfinite(gradient).all())
    assert loss.takes(outputs, classes) is finite


def _parity(loss: Loss, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "task": SparseParity(n=8, k=2, examples=100, batch_size=16, test_examples=16),
        "model": MLP(width=4, activation="relu", outputs=1),
        "loss": loss,
        "steps": 6,
        "schedule": every(2),
        "name": "parity",
    }
    return Experiment(**{**settings, **changes})


@pytest.mark.parametrize("loss", _KINDS, ids=str)
def test_a_loss_of_one_output_trains_or_is_refused_with_losses_that_fit(
    loss: Loss, tmp_path: Path
) -> None:
    if loss.takes(1, 2):
        assert np.isfinite(train(_parity(loss), tmp_path / "run").losses.values).all()
        return
    with pytest.raises(ConfigError, match=r"1 output.*2 classes.*mse, hinge"):
        train(_parity(loss), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_change_to_a_loss_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    change = Change("loss.name", "cross_entropy", start=3)
    with pytest.raises(ConfigError, match="mse, hinge"):
        train(_parity(Hinge(), interventions=(change,)), tmp_path / "run")
    run = train(_parity(Hinge()), tmp_path / "parent")
    with pytest.raises(ConfigError, match="mse, hinge"):
        fork(run, step=2, interventions=[change], out=tmp_path / "fork")
    assert not (tmp_path / "fork").exists()


def test_two_outputs_and_a_users_own_loss_are_taken() -> None:
    ProgramSchedule(tiny_mlp_experiment().parts()).check()
    ProgramSchedule(_parity(CrossEntropy(), model=MLP(width=4, activation="relu")).parts()).check()

    @dataclass(frozen=True)
    class Own(Loss):
        def __call__(self, outputs: Any, targets: Any) -> Any:
            return jnp.square(outputs[..., 0] - targets)

    assert Own().takes(1, 2)
    ProgramSchedule(replace(_parity(Hinge()), loss=Own()).parts()).check()
