"""Files with one flipped bit: each is refused by the right error, or is read as it was."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def _bits(content: bytes) -> Iterator[tuple[int, int]]:
    """(byte, bit) of every bit in a zip's headers and directory, and of some in its arrays."""
    marks = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")
    in_headers: set[int] = set()
    for mark in marks:
        start = content.find(mark)
        in_headers |= set(range(start, min(start + 46, len(content))))
    elsewhere = range(0, len(content), max(1, len(content) // 60))
    for byte in sorted(in_headers | set(elsewhere)):
        for bit in range(8):
            yield byte, bit


def assert_flips_are_refused(
    file: Path, content: bytes, read: Callable[[], dict[str, Any]], error: type[Exception]
) -> None:
    """Assert that every file with one flipped bit raises ``error`` or gives the same arrays.

    Args:
        file: the file that is written and read.
        content: its content, undamaged.
        read: reads the file.
        error: the error that names the damage.
    """
    assert zipfile.is_zipfile(file)
    expected, refused = read(), 0
    for byte, bit in _bits(content):
        flipped = bytes([content[byte] ^ (1 << bit)])
        file.write_bytes(content[:byte] + flipped + content[byte + 1 :])
        try:
            arrays = read()
        except error:
            refused += 1
            continue
        assert arrays.keys() == expected.keys(), (byte, bit)
        for name, value in expected.items():
            np.testing.assert_array_equal(arrays[name], value, err_msg=f"{name} {byte} {bit}")
    assert refused > 100
