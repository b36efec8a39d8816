"""Segments of a run on disk, written and read by Orbax, with a hash for every array.

A segment is the directory ``segments/<step>/``: the train state at its end, and the snapshots and
losses since the segment before, committed together by one atomic rename. Orbax does not verify what
it reads, so each array has a sha256 over its bytes, dtype, shape, name and step, and every read
compares it. No other module imports Orbax.

A segment has nine files, whatever the number of its arrays. The state, the snapshots and the losses
are three Zarr arrays of bytes with one chunk each, so that each is read without the others. The
index lies in Orbax's own metadata file: hashes, and the name, dtype and shape of every array, in
the order of their bytes. Segments of earlier versions (an ``index`` folder, and one OCDBT store for
each of the three) are still read.
"""

import contextlib
import gc
import hashlib
import json
import logging
import math
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.records import digest

Flat = dict[str, np.ndarray]
"""Arrays by dotted name."""

_UNFINISHED = "*.orbax-checkpoint-tmp*"
"""Names of the directories that Orbax writes to before the rename."""

_CALLBACK_SECONDS = 0.2
"""Time for which callbacks of a failed read may still run."""


class Segment(NamedTuple):
    """Contents of one segment.

    Attributes:
        start: the step at which the segment before ended.
        end: the step at which this segment ends.
        steps: the steps of the snapshots.
        snapshots: parameters (snapshot, seed, ...) by dotted name; empty if there is no
            snapshot.
        state: the train state (seed, ...) at ``end`` by dotted name; empty if the trajectory was
            not trained but planted or imported.
        losses: the training loss of the parameters after start, ..., end - 1 updates.
    """

    start: int
    end: int
    steps: tuple[int, ...]
    snapshots: Flat
    state: Flat
    losses: Float[np.ndarray, "step seed"]


class Index(NamedTuple):
    """Index of a segment, which is read without its arrays.

    Attributes:
        start: the step at which the segment before ended.
        end: the step at which this segment ends.
        steps: the steps of the snapshots.
        seeds: the run's seeds.
        parameters: the dotted names of the parameters.
        hashes: the sha256 of every array, by label.
        arrays: the name, dtype and shape of every array in the order of their bytes, by item
            ("losses", "state", "snapshots"); None in a segment of an earlier version.
        run: the identity hash of the experiment; None in the oldest runs, which did not store it.
    """

    start: int
    end: int
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    parameters: tuple[str, ...]
    hashes: dict[str, str]
    run: str | None
    arrays: dict[str, list[tuple[str, str, list[int]]]] | None


def write(folder: Path, segment: Segment, seeds: tuple[int, ...], run: str) -> Path:
    """Write a segment: its directory appears whole, or not at all. Returns the directory.

    Args:
        folder: the folder of segments.
        segment: the contents.
        seeds: the run's seeds.
        run: the identity hash of the experiment that the segment belongs to.

    Raises:
        RunError: if it cannot be written (a full disk, an unwritable folder). Finished segments
            are left as they are.
    """
    path = segment_path(folder, segment.end)
    groups = {
        "losses": {"losses": segment.losses},
        "state": segment.state,
        "snapshots": segment.snapshots,
    }
    items = {item: group for item, group in groups.items() if group}
    body = {
        "start": segment.start,
        "end": segment.end,
        "steps": list(segment.steps),
        "seeds": list(seeds),
        "parameters": list(segment.snapshots),
        "run": run,
        "hashes": _hashes(segment, seeds),
        "arrays": {item: _layout(group) for item, group in items.items()},
    }
    try:
        with _quiet(), contextlib.closing(_checkpointer()) as checkpointer:
            checkpointer.save(
                path,
                ocp.args.PyTreeSave({item: _bytes(group) for item, group in items.items()}),
                custom_metadata={"index": {**body, "digest": digest(body)}},
            )
    except (OSError, ValueError) as error:
        _remove_for_good(folder)
        reason = _short(str(error).strip().splitlines()[0])
        raise RunError(
            f"The segment at step {segment.end} cannot be written to {folder} ({reason})."
            " Everything up to the segment before is kept. Make room or mend the folder, then run"
            " the same command to resume from there."
        ) from error
    return path


def segment_path(folder: Path, end: int) -> Path:
    """Directory of the segment that ends at step ``end`` of the run in ``folder``."""
    return folder / f"{end:09d}"


def finished(folder: Path) -> list[int]:
    """The steps at which finished segments end, sorted. All else in the folder is unfinished."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def remove_unfinished(folder: Path) -> None:
    """Remove the remains of a killed or failed save. The caller must hold the writer's lock."""
    for path in folder.glob(_UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)


def _short(reason: str) -> str:
    """The two ends of a long reason: what failed, and the error of the operating system."""
    return reason if len(reason) <= 200 else f"{reason[:90]} ... {reason[-90:]}"


def _remove_for_good(folder: Path) -> None:
    """Remove a failed save, into which its own threads may still be writing."""
    for _ in range(20):
        remove_unfinished(folder)
        time.sleep(0.05)
        if not list(folder.glob(_UNFINISHED)):
            return


def read_index(folder: Path, end: int) -> Index:
    """The index of a segment.

    Args:
        folder: the folder of segments.
        end: the step at which the segment ends.

    Raises:
        DamagedError: if the index was changed.
    """
    path = segment_path(folder, end)
    with _reading(path):
        if (path / "index").is_dir():
            body = json.loads((path / "index" / "metadata").read_text())
        else:
            body = json.loads((path / "_CHECKPOINT_METADATA").read_text())["custom_metadata"][
                "index"
            ]
        stored_digest = body.pop("digest")
        if stored_digest != digest(body) or body["end"] != end:
            raise ValueError("its index was changed")
        fields = {key: tuple(body[key]) for key in ("steps", "seeds", "parameters")}
        return Index(
            start=body["start"],
            end=end,
            hashes=body["hashes"],
            run=body.get("run"),
            arrays=body.get("arrays"),
            **fields,
        )


def read_losses(folder: Path, index: Index) -> Float[np.ndarray, "step seed"]:
    """The losses of a segment's updates.

    Args:
        folder: the folder of segments.
        index: the segment's index.

    Raises:
        DamagedError: if they were changed.
    """
    path = segment_path(folder, index.end)
    with _reading(path):
        losses = _read(path, index, "losses", ["losses"])["losses"]
        _check(index.hashes, f"losses@{index.end}", losses)
    return losses


def read_state(folder: Path, index: Index) -> Flat:
    """The train state at a segment's end, by dotted name.

    Args:
        folder: the folder of segments.
        index: the segment's index.

    Raises:
        DamagedError: if it was changed.
    """
    path = segment_path(folder, index.end)
    names = [name.removeprefix("state@") for name in index.hashes if name.startswith("state@")]
    with _reading(path):
        state = _read(path, index, "state", names) if names else {}
        for name, value in state.items():
            _check(index.hashes, f"state@{name}", value, index.end)
    return state


def read_snapshots(folder: Path, index: Index, rows: Sequence[int] | None = None) -> Flat:
    """Parameters (snapshot, seed, ...) by dotted name.

    Args:
        folder: the folder of segments.
        index: the segment's index.
        rows: the snapshots to give, by their index in ``index.steps``; all by default. Only these
            are compared with their hashes.

    Raises:
        DamagedError: if they were changed.
    """
    path = segment_path(folder, index.end)
    rows = range(len(index.steps)) if rows is None else rows
    with _reading(path):
        stacks = _read(path, index, "snapshots", list(index.parameters))
        for name, stack in stacks.items():
            if stack.shape[:2] != (len(index.steps), len(index.seeds)):
                raise ValueError(f"{name} has the shape {stack.shape}")
            for row in rows:
                step = index.steps[row]
                for seed_index, seed in enumerate(index.seeds):
                    label = _snapshot_label(step, seed, name)
                    _check(index.hashes, label, stack[row, seed_index], step)
    return {name: stack[list(rows)] for name, stack in stacks.items()}


def _hashes(segment: Segment, seeds: tuple[int, ...]) -> dict[str, str]:
    hashes = {
        f"state@{name}": _hash(f"state@{name}", value, segment.end)
        for name, value in segment.state.items()
    }
    hashes[f"losses@{segment.end}"] = _hash(f"losses@{segment.end}", segment.losses)
    for name, stack in segment.snapshots.items():
        for row, step in enumerate(segment.steps):
            for seed_index, seed in enumerate(seeds):
                label = _snapshot_label(step, seed, name)
                hashes[label] = _hash(label, stack[row, seed_index], step)
    return hashes


def _snapshot_label(step: int, seed: int, name: str) -> str:
    return f"{step}/{seed}/{name}"


def _hash(label: str, value: np.ndarray, step: int = -1) -> str:
    head = f"{label}|{step}|{value.dtype}|{value.shape}|".encode()
    return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()


def _check(hashes: dict[str, str], label: str, value: np.ndarray, step: int = -1) -> None:
    if hashes.get(label) != _hash(label, value, step):
        raise ValueError(f"{label} was changed")


def _checkpointer(*, use_ocdbt: bool = False) -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=use_ocdbt))


def _layout(group: Flat) -> list[tuple[str, str, list[int]]]:
    """The name, dtype and shape of each array, in the order of their bytes."""
    return [(name, value.dtype.name, list(value.shape)) for name, value in group.items()]


def _bytes(group: Flat) -> np.ndarray:
    """The bytes of all arrays, one after another."""
    return np.concatenate(
        [np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in group.values()]
    )


def _read(path: Path, index: Index, item: str, names: list[str]) -> Flat:
    """The named arrays of an item of a segment, without reading the other items."""
    if index.arrays is None:
        return _restore(_checkpointer(use_ocdbt=True), path / item, names)
    joined = _restore(_checkpointer(), path, [item])[item]
    arrays, begin = Flat(), 0
    for name, dtype, shape in index.arrays[item]:
        end = begin + np.dtype(dtype).itemsize * math.prod(shape)
        arrays[name] = joined[begin:end].view(dtype).reshape(shape)
        begin = end
    return {name: arrays[name] for name in names}


def _restore(checkpointer: ocp.Checkpointer, path: Path, names: list[str]) -> Flat:
    """The named arrays, without reading others."""
    request = ocp.args.PyTreeRestore(
        item={name: jax.ShapeDtypeStruct((), np.float32) for name in names},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    with _quiet():
        restored = checkpointer.restore(path, args=request)
    for name in names:
        # Orbax raises nothing for a name that it does not find: it returns the request's struct.
        if not isinstance(restored.get(name), np.ndarray):
            raise KeyError(f"{name} is missing")
    return {name: restored[name] for name in names}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of a damaged file into one DamagedError that names the segment."""
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DamagedError(
            f"Segment {path.name} is damaged ({reason}), so its numbers cannot be trusted. To"
            f" train it again from the segment before, remove {path} and every later one, then run"
            " the same command."
        ) from error


def _free_frames(error: BaseException | None) -> None:
    """Free the objects held by the frames that an error, or one of its causes, passed through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax's log lines, and what its threads and callbacks print after a failure, off the
    terminal. The failure itself is still raised.

    Callbacks of a failed read reach a closed event loop for a moment longer, so a failure waits for
    them. Tasks of a failed save print an error when they are freed, so they are freed here.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hooks = [logger.level for logger in loggers], (threading.excepthook, sys.unraisablehook)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    threading.excepthook = sys.unraisablehook = lambda arguments: None
    try:
        yield
    except BaseException as error:
        time.sleep(_CALLBACK_SECONDS)
        _free_frames(error)
        raise
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
