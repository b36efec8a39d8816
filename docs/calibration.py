"""Run every calibration test and write what it found into docs/calibration.md; about an hour.

python docs/calibration.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "calibration.md"

Row = dict[str, Any]


class Table(NamedTuple):
    """A table of the page.

    Attributes:
        heading: above it.
        text: says what was simulated and how to read the table.
        line: the column whose values are the labels of the lines.
        across: the column whose values become columns of their own, if any.
        value: with ``across``, the column whose values fill the cells.
    """

    heading: str
    text: str
    line: str
    across: str = ""
    value: str = ""


TABLES = {
    "numbers": Table(
        "Intervals of medians of numbers",
        "Share of 4,000 simulations in which the interval of `mi_jax.dynamics.interval` holds the"
        " true median, by number of seeds and distribution, beside the coverage that the label"
        " states. Required: within 3 standard errors of the label.",
        "seeds",
        "distribution",
        "covered",
    ),
    "dates": Table(
        "Intervals of medians of dates",
        "The same for `date_interval`, whose dates are known exactly, between snapshots, or not"
        " at all: seen from step 700 on (left), up to step 1,300 (right), or with seeds that never"
        " get there. Dates between snapshots make an interval wider, so that it may cover more than"
        " its label. Required: not below the label by more than 3 standard errors.",
        "seeds",
        "kind",
        "covered",
    ),
    "differences": Table(
        "Intervals of medians of paired differences of dates",
        "The same for `date_differences` of dates that are known between snapshots.",
        "seeds",
    ),
    "walks": Table(
        "Likeness to a random walk",
        "`walk_likeness` of true random walks of 60 steps in 20,000 dimensions: medians over seeds"
        " and four draws, by number of seeds, for the principal components 1 to 5. Required: at"
        " least .9.",
        "seeds",
    ),
    "histories": Table(
        "One step, one reading",
        "Numbers of readings of one step that were compared, bit for bit, between the run and"
        " another way to the same step, for every measure of the registry that applies. The test"
        " has eight organisms; those that were run are listed.",
        "organism",
    ),
    "budgets": Table(
        "Dates and the length of training",
        "Runs of five kinds, ten seeds each, trained to five numbers of steps: how many dates had"
        " happened, and how many of these another number of steps changed. Required: none.",
        "kind",
    ),
    "claims": Table(
        "Claims where there is nothing to find",
        "Of 40 pages in each family (p = 23, transformers and MLPs), how many make a claim that is"
        " false there, and which claims are made. Every claim is false in these families, but for"
        " sharpness in networks with larger weights, which is not tested there. Required: at most 5"
        " of 40 in a family and 16 in all families of five seeds together. The least sizes that"
        " claims of structure state were chosen after a first run without them: there 5 of 240"
        " pages of five seeds made a false claim, and networks that had memorised true answers"
        " showed a trace of the order of residues (gini_embedding of at most .15, on 24 of 40"
        " pages), which is not counted as structure any more.",
        "family",
    ),
    "power": Table(
        "Claims where an effect was planted",
        "Of 100 pages of 5 seeds with a planted effect (two circuits under half their size of"
        " noise, or shifted readings), how many make the claim. Required: at least 90.",
        "claim",
    ),
}


def run(folder: Path) -> list[dict[str, Any]]:
    """Runs the calibration tests, long ones too, and returns the rows that they recorded."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-m", "long or not long"),
            *("-n", "auto", "--dist", "worksteal", "tests/calibration"),
        ],
        cwd=_ROOT,
        env={**os.environ, "MI_JAX_CALIBRATION": str(folder)},
        check=True,
    )
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def page(recorded: list[dict[str, Any]]) -> str:
    """The page, from rows with the keys ``table`` and ``row``.

    Raises:
        KeyError: if a row names a table that is not among TABLES.
    """
    parts = [
        "# Calibration\n",
        "What intervals cover, how often noise makes a claim, and whether dates and readings depend"
        " on how a step was reached: simulations with known truth (tests/calibration). `make"
        " calibration` runs them and writes this page; `make test-long` runs the same tests.\n",
    ]
    by_table: dict[str, list[Row]] = {name: [] for name in TABLES}
    for entry in recorded:
        by_table[entry["table"]].append(entry["row"])
    for name, table in TABLES.items():
        if by_table[name]:
            parts += [f"## {table.heading}\n", f"{table.text}\n", _table(table, by_table[name])]
    return "\n".join(parts)


def _table(table: Table, rows: list[Row]) -> str:
    """Rows as Markdown, one line per value of ``line`` if there is a column to spread."""
    if not table.across:
        # The other columns decide between equal lines: tests end in any order.
        lines = sorted(rows, key=lambda row: (row[table.line], str(list(row.values()))))
    else:
        spread: dict[Any, Row] = {}
        for row in sorted(rows, key=lambda row: (row[table.line], str(row[table.across]))):
            rest = {k: v for k, v in row.items() if k not in (table.across, table.value)}
            spread.setdefault(row[table.line], rest)[str(row[table.across])] = row[table.value]
        lines = list(spread.values())
    columns = list(dict.fromkeys(column for line in lines for column in line))
    cells = [columns, ["---"] * len(columns)]
    cells += [[_cell(line.get(column, "")) for column in columns] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def _cell(value: object) -> str:
    """A number to four digits, or the text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as _folder:
        _PAGE.write_text(page(run(Path(_folder))))
