"""Files written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; renamed into its place when the block ends,
    removed when the block fails.

    A reader sees the old file or the new one, never a part.

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
    """Writes a file's whole content. See ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
