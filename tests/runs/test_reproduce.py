"""mi-jax reproduce: a run trained again is called the same if every stored number is, and
differences are named.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SEGMENTED

from mi_jax.basics.records import digest
from mi_jax.cli.main import main
from mi_jax.runs.experiment import Experiment
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.training import AdamW, at

pytestmark = pytest.mark.slow  # over half a minute in all


def _reindexed(run: Path, end: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the index of a segment together with its own digest."""
    file = run / "segments" / f"{end:09d}" / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    body = metadata["custom_metadata"]["index"]
    body.pop("digest")
    change(body)
    body["digest"] = digest(body)
    file.write_text(json.dumps(metadata))


def _rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record together with its own digest, so that the record stays consistent."""
    body = json.loads(file.read_text())
    body.pop("digest")
    change(body)
    file.write_text(json.dumps({**body, "digest": digest(body)}))


def _reproduce(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["reproduce", *arguments, "--json", "--quiet", "--no-compile-cache"])
    return status, json.loads(capsys.readouterr().out)


def _claimed(path: Path, made_by: Experiment, claimed: Experiment) -> Path:
    """Train one experiment, and make the record of the run claim that it is another."""
    answer = train(claimed, path.with_name("claimed")).record
    run = train(made_by, path).path
    shutil.copy(path.with_name("claimed") / "run.json", run / "run.json")
    for end in (8, 16, 24):
        _reindexed(run, end, lambda body: body.update(run=answer["hash"]))
    return run


def test_an_untouched_run_is_the_same_bit_for_bit(
    capsys: pytest.CaptureFixture[str], copy: Path
) -> None:
    status, answer = _reproduce(capsys, str(copy))
    again = copy.with_name("copy-again")
    assert (status, answer["equal"], answer["different"], answer["machine"]) == (0, True, [], [])
    assert (answer["run"], answer["again"]) == (str(copy), str(again))
    np.testing.assert_array_equal(open_run(again).losses, open_run(copy).losses)
    assert open_run(again).trajectories[0].hashes() == open_run(copy).trajectories[0].hashes()


def test_the_verdict_is_printed_and_out_is_used(
    capsys: pytest.CaptureFixture[str], segmented: Path, tmp_path: Path
) -> None:
    assert (
        main(
            [
                "reproduce",
                str(segmented),
                "--out",
                str(tmp_path / "there"),
                "--quiet",
                "--no-compile-cache",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["every stored number is the same, bit for bit", f"again: {tmp_path / 'there'}"]
    assert open_run(tmp_path / "there").experiment == SEGMENTED


def test_another_learning_rate_under_the_same_name_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = replace(SEGMENTED, optimizer=AdamW(learning_rate=1.01e-2, warmup=1))
    run = _claimed(tmp_path / "run", made_by=other, claimed=SEGMENTED)
    status, answer = _reproduce(capsys, str(run))
    assert (status, answer["equal"]) == (1, False)
    # Initialisation is the same, and in the first update the rate is 0.
    assert answer["different"] == [
        "parameters: different at 4 of 5 snapshots, first at step 3",
        "train states: different at 3 ends of segments, first at step 8",
        "losses: first different at step 2",
    ]


def test_other_steps_are_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = _claimed(
        tmp_path / "run", made_by=replace(SEGMENTED, schedule=at(3, 20)), claimed=SEGMENTED
    )
    status, answer = _reproduce(capsys, str(run))
    assert (status, answer["different"]) == (
        1,
        ["snapshots at steps [11] are missing", "snapshots: 4 there, 5 here"],
    )


def test_an_unfinished_run_is_not_the_same(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    shutil.rmtree(copy / "segments" / "000000024")
    status, answer = _reproduce(capsys, str(copy))
    assert (status, answer["different"]) == (
        1,
        ["snapshots: 3 there, 5 here", "losses: first different at step 16"],
    )


@pytest.mark.parametrize(("step", "end"), [(3, 8), (24, 24)])
def test_an_altered_snapshot_is_found_at_its_step(
    capsys: pytest.CaptureFixture[str], copy: Path, step: int, end: int
) -> None:
    def alter(body: dict[str, Any]) -> None:
        name = next(name for name in body["hashes"] if name.startswith(f"{step}/1/"))
        body["hashes"][name] = "0" * 64

    _reindexed(copy, end, alter)
    status, answer = _reproduce(capsys, str(copy))
    assert status == 1
    assert f"parameters: different at 1 of 5 snapshots, first at step {step}" in answer["different"]


def test_an_altered_train_state_is_found(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    """Train states are compared too, not only snapshots."""

    def alter(body: dict[str, Any]) -> None:
        name = next(name for name in body["hashes"] if name.startswith("state@opt"))
        body["hashes"][name] = "0" * 64

    _reindexed(copy, 16, alter)
    status, answer = _reproduce(capsys, str(copy))
    assert (status, answer["equal"]) == (1, False)
    assert "train states: different at 1 ends of segments, first at step 16" in answer["different"]


def test_a_run_whose_arrays_are_damaged_is_not_said_to_be_the_same(
    capsys: pytest.CaptureFixture[str], copy: Path
) -> None:
    """Equal hashes are not enough: the arrays themselves may be damaged."""
    for file in (copy / "segments" / "000000016" / "snapshots").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])
    assert main(["verify", str(copy)]) == 1
    capsys.readouterr()
    assert main(["reproduce", str(copy), "--quiet", "--no-compile-cache"]) != 0
    assert "every stored number is the same" not in capsys.readouterr().out


def test_a_run_is_not_compared_with_itself(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    assert main(["reproduce", str(copy), "--out", str(copy), "--quiet", "--no-compile-cache"]) == 2
    assert "--out" in capsys.readouterr().err


def test_an_earlier_reproduction_is_not_used_again(
    capsys: pytest.CaptureFixture[str], copy: Path
) -> None:
    assert _reproduce(capsys, str(copy))[0] == 0
    assert main(["reproduce", str(copy), "--quiet", "--no-compile-cache"]) == 2
    assert "already holds a finished run" in capsys.readouterr().err


def test_another_machine_is_named_beside_the_verdict(
    capsys: pytest.CaptureFixture[str], copy: Path
) -> None:
    _rewritten(copy / "run.json", lambda record: record["machine"].update(jax="0.0.1"))
    status, answer = _reproduce(capsys, str(copy))
    assert (status, answer["equal"]) == (0, True)
    assert any("0.0.1" in line for line in answer["machine"])


def test_settings_are_not_overridden_and_a_missing_run_is_named(
    capsys: pytest.CaptureFixture[str], segmented: Path, tmp_path: Path
) -> None:
    assert main(["reproduce", str(segmented), "--steps", "5"]) == 2
    assert "reproduce does not take --steps 5" in capsys.readouterr().err
    assert main(["reproduce", str(tmp_path / "nowhere")]) == 2
    assert "is no run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
