"""Names of version 0.1.0, each of which still works and warns."""

import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import mi_jax
from mi_jax import dynamics, interventions
from mi_jax.basics import moved
from mi_jax.basics.fields import old_names
from mi_jax.contracts import Evaluation, Measure
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import TASKS


@pytest.mark.parametrize(("old", "new"), moved.MOVED.items())
def test_an_old_module_path_gives_the_new_module(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)


def test_the_old_paths_need_no_jax_to_be_known() -> None:
    code = "import sys, mi_jax; assert 'jax' not in sys.modules; from mi_jax.errors import RunError"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_public_modules_stand_where_they_were() -> None:
    assert mi_jax.errors.__name__ == "mi_jax.basics.errors"
    assert mi_jax.across.__name__ == "mi_jax.runs.across"


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (dynamics, "Path", "PrincipalPath"),
        (dynamics, "Transition", "ChangePoint"),
        (interventions, "Moment", "PrepareContext"),
        (interventions, "Trained", "CheckContext"),
    ],
)
def test_an_old_name_of_a_module_warns(module: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        assert getattr(module, old) is getattr(module, new)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = module.Nothing  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "old", ["transitions", "Transitions", "Dates", "phases", "Phases", "regimes"]
)
def test_a_name_without_a_successor_says_what_to_use(old: str) -> None:
    with pytest.raises(AttributeError, match=rf"dynamics\.{old} was removed.*Use dynamics\.grok"):
        getattr(dynamics, old)


_TASKS = [task.smallest() for task in TASKS.values() if "batch" in old_names(task)]


@pytest.mark.parametrize("task", _TASKS, ids=lambda task: type(task).__name__)
def test_batch_is_the_old_name_of_batch_size(task: object) -> None:
    with pytest.warns(DeprecationWarning, match=r"batch=\.\.\.\) is now batch_size="):
        changed = replace(task, batch=3)  # pyright: ignore
    assert changed == replace(task, batch_size=3)  # pyright: ignore
    with pytest.warns(DeprecationWarning, match="batch is now .batch_size"):
        assert changed.batch == 3
    experiment = Experiment(task=changed)
    stored = experiment.to_json()
    assert stored["task"]["batch"] == 3
    assert "batch_size" not in stored["task"]
    assert Experiment.from_json(stored) == experiment
    renamed = {**stored, "task": {**stored["task"], "batch_size": 3}}
    del renamed["task"]["batch"]
    assert Experiment.from_json(renamed).hash == experiment.hash


def test_old_names_of_the_contracts() -> None:
    with pytest.warns(DeprecationWarning, match="concepts"):
        facts = Evaluation(batches={}, concepts={"table": np.zeros(2)})  # pyright: ignore
    with pytest.warns(DeprecationWarning, match="concepts"):
        assert facts.concepts is facts.ground_truth
    with pytest.warns(DeprecationWarning, match="is now") as warned:
        measure = Measure(
            "m", lambda params, context: 0, concepts=("table",), labels={"draw": (1,)}
        )  # pyright: ignore
    assert len(warned) == 2
    assert (measure.ground_truth, measure.coordinates) == (("table",), {"draw": (1,)})
