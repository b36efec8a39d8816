"""Files that are written whole or not at all."""

import contextlib
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

UNREADABLE = (
    OSError,
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
header of an array can make it no Python literal (SyntaxError) or too large (MemoryError).
"""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager to replace a file in one step.

    Inside the block, write to the temporary file that it gives. When the block ends, that file is
    renamed to ``path``; when the block fails, it is removed. A reader of ``path`` sees the old file
    or the new one, never a part.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with replacing(file) as temporary:
        ...     _ = temporary.write_text("1 2 3")
        >>> file.read_text()
        '1 2 3'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
