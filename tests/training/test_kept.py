"""Arrays kept beside a run: exact, or refused as damaged."""

from pathlib import Path

import numpy as np
from flipping import assert_flips_are_refused

from mi_jax.basics.errors import DamagedError
from mi_jax.training.kept import read_arrays, write_arrays


def test_a_file_with_one_flipped_bit_is_damaged_or_read_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "kept.npz"
    arrays = {"W": np.arange(6.0).reshape(2, 3), "b": np.array([1, -0.0, np.nan], np.float32)}
    write_arrays(file, arrays, "run")
    assert_flips_are_refused(
        file, file.read_bytes(), lambda: read_arrays(file, "run"), DamagedError
    )
