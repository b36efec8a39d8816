"""Rows of the tables in docs/calibration.md, which calibration tests give as they run."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

FOLDER = "MI_JAX_CALIBRATION"
"""The environment variable that names the folder of the rows, set by docs/calibration.py."""


def record(table: str, row: Mapping[str, str | float | bool]) -> None:
    """Keeps a row for a table of docs/calibration.md; does nothing in other runs of the tests.

    Args:
        table: the key of the table in docs/calibration.py.
        row: its cells by column.
    """
    folder = os.environ.get(FOLDER)
    if folder:
        # One file a row: tests run in several processes.
        file = Path(folder) / f"{uuid.uuid4().hex}.json"
        file.write_text(json.dumps({"table": table, "row": dict(row)}))
