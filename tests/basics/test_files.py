"""Files written whole or not at all, and nothing left of the processes that were killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mi_jax.basics.files import replace_file, replacing

_KILLED = """
import os, signal, sys
from pathlib import Path
from mi_jax.basics.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_writing_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    file = tmp_path / "loss.nc"
    file.write_text("whole")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert file.read_text() == "whole"
    replace_file(tmp_path / "other.nc", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.nc", "other.nc"]


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    with replacing(tmp_path / "first.nc") as temporary:
        temporary.write_text("first")
        # Another process that lives, another machine, and what is no file of ours.
        living = temporary.with_name(
            temporary.name.replace(f".{os.getpid()}.", f".{os.getppid()}.")
        )
        elsewhere = tmp_path / ".x.nc.999999999.00000000.tmp"
        notes = tmp_path / ".notes.tmp"
        for path in (living, elsewhere, notes):
            path.write_text("theirs")
        replace_file(tmp_path / "second.nc", b"second")
        assert all(path.exists() for path in (living, elsewhere, notes, temporary))
    assert (tmp_path / "first.nc").read_text() == "first"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("old")

    def fail() -> None:
        with replacing(file) as temporary:
            temporary.write_text("new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert file.read_text() == "old"
