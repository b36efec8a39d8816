"""A committed run of each format version must always open.

If this fails, teach the reader the old layout; never change the committed run.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mi_jax.basics.errors import RunError
from mi_jax.basics.records import digest
from mi_jax.runs.run import open_run
from mi_jax.training.record import FORMAT
from mi_jax.training.trajectory import Trajectory
from mi_jax.training.verifying import problems

_RUN = Path(__file__).parents[1] / "data" / "run_format_1"
_FORK = _RUN.with_name("run_format_2")
_LOSS, _SUM = 2.3858530521392822, 0.6485231518745422


@pytest.mark.parametrize("path", [_RUN, _RUN.with_name("run_format_3")])
def test_formats_1_and_3_open_with_the_numbers_they_were_written_with(path: Path) -> None:
    run = open_run(path)
    assert run.seeds == (0, 1)
    assert run.steps.tolist() == [0, 2, 4, 6]
    assert run.losses.sel(seed=1, step=5).item() == np.float32(3.092355728149414)
    assert float(np.asarray(run.params(6, seed=1)["embed"]["W_E"]).sum()) == pytest.approx(
        0.6484754681587219, abs=1e-12
    )
    assert run.state_at(6).step.tolist() == [6, 6]
    assert [status.state for status in run.status.values()] == ["finished", "finished"]
    assert run.experiment.task.p == 5  # pyright: ignore[reportAttributeAccessIssue]
    assert list(problems(Trajectory(path))) == []


def test_format_2_is_a_fork_that_opens_and_replays_without_its_parent() -> None:
    run = open_run(_FORK)
    assert run.parent is not None
    assert (run.parent[1], run.seeds, run.steps.tolist()) == (3, (0, 1), [3, 4, 6])
    assert run.losses["step"].values.tolist() == [3, 4, 5]
    assert run.losses.sel(seed=1, step=5).item() == np.float32(_LOSS)
    assert [type(i).__name__ for i in run.experiment.interventions] == ["Project", "Change"]
    assert float(np.asarray(run.params(6, seed=1)["embed"]["W_E"]).sum()) == pytest.approx(
        _SUM, abs=1e-12
    )
    assert run.state_at(3).step.tolist() == [3, 3]
    assert list(problems(Trajectory(_FORK))) == []


def test_a_newer_format_is_refused_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(_RUN, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    record.pop("digest")
    record["format"] = FORMAT + 1
    file.write_text(json.dumps({**record, "digest": digest(record)}))
    with pytest.raises(RunError, match=rf"format {FORMAT + 1}.*reads up to {FORMAT}.*Upgrade"):
        open_run(tmp_path / "run")


def test_a_stored_experiment_keeps_its_identity() -> None:
    run = open_run(_RUN)
    assert run.experiment.hash == run.record["hash"]
    assert run.experiment.to_json() == run.record["experiment"]
