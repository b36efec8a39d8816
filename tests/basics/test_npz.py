"""npz files: every array as it was written, and no claim of a header is believed."""

import io
import resource
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mi_jax.basics.errors import DamagedError, WeightsError
from mi_jax.basics.files import UNREADABLE, read_npz
from mi_jax.models import MLP
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.kept import read_arrays

_ARRAYS = {
    "x": np.arange(6.0).reshape(2, 3),
    "f.y": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float32),
    "number": np.array(2.5),
    "text": np.array("text"),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "x.npz", **_ARRAYS)
    arrays = read_npz(tmp_path / "x.npz")
    assert arrays.keys() == _ARRAYS.keys()
    for name, value in _ARRAYS.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].flags.writeable


def _npy(header: str, content: bytes = bytes(16), version: int = 1) -> bytes:
    """The bytes of an npy with this header."""
    size = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + b"\n" + content


def _header(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def _pickled() -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([{}], object), allow_pickle=True)
    return out.getvalue()


_ENTRIES = {
    "9 GiB": _npy(_header(f"({9 * 2**27},)")),
    "3 EiB": _npy(_header(f"({3 * 2**57},)")),
    "beyond 64 bits": _npy(_header(f"({2**70}, {2**70})")),
    "nothing, many times": _npy(_header(f"({2**40},)", "'|V0'")),
    "negative": _npy(_header("(-1,)")),
    "bool dim": _npy(_header("(True, 2)")),
    "float dim": _npy(_header("(2.0,)")),
    "text dim": _npy(_header("('a',)")),
    "no tuple": _npy(_header("2")),
    "unterminated": _npy(_header("(2,")[:-3]),
    "unterminated text": _npy("{'descr': '<f8"),
    "indented": _npy("  {\n    'a'\n  : 1}"),
    "no dict": _npy("[]"),
    "deep": _npy("(" * 5_000),
    "long": _npy(_header("(2,)") + " " * 20_000, version=2),
    "no type": _npy(_header("(2,)", "'<q9'")),
    "odd type": _npy(_header("(2,)", "[('a',)]")),
    "objects": _pickled(),
    "a later version": _npy(_header("(2,)"), version=9),
    "short": _npy(_header("(3,)")),
    "too much": _npy(_header("(1,)")),
    "no npy": b"x",
    "empty": b"",
}


def _zipped(file: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", content)
    return file


def _refused(file: Path) -> None:
    """Every reader of an npz refuses the file, and allocates next to nothing."""
    tracemalloc.start()
    with pytest.raises(UNREADABLE):
        read_npz(file)
    with pytest.raises(DamagedError, match="cannot be read"):
        read_arrays(file, "run")
    with pytest.raises(WeightsError, match="cannot be read as an npz"):
        load_weights(file, MLP(width=2).build(ModularArithmetic(p=5).inputs))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**24


@pytest.mark.parametrize("entry", _ENTRIES)
def test_a_header_that_claims_what_is_not_there_is_refused(tmp_path: Path, entry: str) -> None:
    _refused(_zipped(tmp_path / "x.npz", _ENTRIES[entry]))


def _changed(file: Path, offset: int, value: bytes, *, local: bool) -> None:
    """Overwrite bytes of an entry's header, in the directory and, if asked for, before the data."""
    content = bytearray(file.read_bytes())
    start = content.find(b"PK\x01\x02")
    content[start + offset + 2 : start + offset + 2 + len(value)] = value
    if local:
        content[offset : offset + len(value)] = value
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (8, struct.pack("<H", 99)),  # a compression that nobody knows
        (8, struct.pack("<H", zipfile.ZIP_LZMA)),
        (6, struct.pack("<H", 1)),  # encrypted
        (22, struct.pack("<I", 2**32 - 2)),  # 4 GiB when read
        (18, struct.pack("<I", 2**32 - 2)),  # 4 GiB in the file
        (14, struct.pack("<I", 0)),  # the checksum
    ],
)
def test_a_directory_that_claims_what_is_not_there_is_refused(
    tmp_path: Path, offset: int, value: bytes
) -> None:
    file = _zipped(tmp_path / "x.npz", _npy(_header("(2,)")))
    assert read_npz(file)["x"].shape == (2,)
    _changed(file, offset, value, local=True)
    _refused(file)


def test_a_compressed_entry_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    content = _npy(_header(f"({2**20},)"), bytes(2**10))
    _refused(_zipped(tmp_path / "x.npz", content, zipfile.ZIP_DEFLATED))
