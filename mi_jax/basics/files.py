"""Files that are written whole or not at all, and arrays that are read as data."""

import contextlib
import hashlib
import lzma
import math
import os
import platform
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

UNREADABLE = (
    OSError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    TypeError,
    tokenize.TokenError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""Every error that reading a damaged zip or npz can raise. A flipped bit in a zip's header can name
another compression (NotImplementedError, LZMAError) or an encrypted file (RuntimeError); one in the
header of an array can make it no Python literal (SyntaxError, TokenError), its type no type
(TypeError, IndexError, AttributeError) or its shape too large (OverflowError, MemoryError).
"""

_LONGEST_HEADER = 10_000
"""Bytes of the longest header of an array that is read; numpy's own limit."""

_SMALLEST = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1100}
"""By compression, the largest number of bytes that one byte of a file can stand for."""

_PART = 2**24
"""Bytes that are read at a time."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager to replace a file in one step.

    Inside the block, write to the temporary file that it gives. When the block ends, that file is
    renamed to ``path``; when the block fails, it is removed. Temporary files that killed processes
    of this machine left in the folder are removed too. A reader of ``path`` sees the old file
    or the new one, never a part.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with replacing(file) as temporary:
        ...     _ = temporary.write_text("1 2 3")
        >>> file.read_text()
        '1 2 3'
    """
    _remove_abandoned(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{_host()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file in one step, see ``replacing``.

    Args:
        path: the file.
        content: its new content.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes of this machine that are no longer alive."""
    for file in folder.glob(f".*.{_host()}.tmp"):
        process = file.name.split(".")[-3]
        if process.isdecimal() and not _is_alive(int(process)):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it belongs to another user
    return True


def _host() -> str:
    """A short name of this machine: processes are numbered by machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def read_npz(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of an npz by name. Nothing is unpickled.

    What a header claims is held against the sizes in the file before memory is allocated.

    Args:
        file: the npz.

    Raises:
        One of ``UNREADABLE``: if the file is no npz, or a header claims what the file cannot hold.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "arrays.npz"
        >>> np.savez(file, x=np.arange(3))
        >>> read_npz(file)["x"].tolist()
        [0, 1, 2]
    """
    with open(file, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        with zipfile.ZipFile(opened) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            return {
                entry.filename.removesuffix(".npy"): _read_array(archive, entry, size)
                for entry in entries
            }


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> np.ndarray:
    """One array of an npz of ``size`` bytes."""
    if entry.compress_type not in _SMALLEST:
        raise NotImplementedError(f"{entry.filename} has the compression {entry.compress_type}")
    most = entry.compress_size * _SMALLEST[entry.compress_type]
    if entry.compress_size > size or entry.file_size > most:
        raise ValueError(
            f"{entry.filename} claims {entry.file_size:,} bytes, and {size:,} cannot hold them"
        )
    with archive.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read:
            raise ValueError(f"{entry.filename} has the unknown format {version}")
        shape, fortran, dtype = read[version](opened, max_header_size=_LONGEST_HEADER)
        if any(type(dim) is not int or dim < 0 for dim in shape) or dtype.hasobject:
            raise ValueError(f"{entry.filename} has the shape {shape} and the type {dtype}")
        count = math.prod(shape)
        if count * dtype.itemsize > entry.file_size:
            raise ValueError(
                f"{entry.filename} claims {count * dtype.itemsize:,} bytes and holds"
                f" {entry.file_size:,}"
            )
        # Read in parts: the size that the zip states may be a lie too.
        content = bytearray()
        while len(content) < count * dtype.itemsize:
            part = opened.read(min(_PART, count * dtype.itemsize - len(content)))
            if not part:
                raise EOFError(f"{entry.filename} ends early")
            content += part
        # The checksum is compared at the end of the entry.
        if opened.read(1):
            raise ValueError(f"{entry.filename} holds more than its header claims")
    flat = np.frombuffer(content, dtype, count) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
