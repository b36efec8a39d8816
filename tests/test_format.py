"""A committed run of each format version opens for ever: if this fails, teach the reader the old layout, keep the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mi_jax.errors import RunError
from mi_jax.experiment import open_run
from mi_jax.records import digest
from mi_jax.training.trajectory import Trajectory
from mi_jax.training.verifying import problems

_RUN = Path(__file__).parent / "data" / "run_format_1"


def test_format_1_opens_with_the_numbers_it_was_written_with() -> None:
    run = open_run(_RUN)
    assert run.seeds == (0, 1)
    assert run.steps.tolist() == [0, 2, 4, 6]
    assert run.losses.sel(seed=1, step=5).item() == np.float32(3.092355728149414)
    assert float(np.asarray(run.params(6, seed=1)["embed"]["W_E"]).sum()) == pytest.approx(0.6484754681587219, abs=1e-12)
    assert run.state_at(6).step.tolist() == [6, 6]
    assert [status.state for status in run.status.values()] == ["finished", "finished"]
    assert run.experiment.task.p == 5  # pyright: ignore[reportAttributeAccessIssue]
    assert list(problems(Trajectory(_RUN))) == []


def test_a_newer_format_is_refused_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(_RUN, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    record.pop("digest")
    record["format"] = 2
    file.write_text(json.dumps({**record, "digest": digest(record)}))
    with pytest.raises(RunError, match=r"format 2.*reads up to 1.*upgrade"):
        open_run(tmp_path / "run")


def test_what_was_stored_keeps_its_identity() -> None:
    run = open_run(_RUN)
    assert run.experiment.hash == run.record["hash"]
    assert run.experiment.to_json() == run.record["experiment"]
