"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
