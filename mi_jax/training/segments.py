"""Segments: what Orbax writes and reads, with a hash on every array. The only module that imports
Orbax.

A segment is the directory ``segments/<step>/``: the train state at its end, the snapshots and the
losses since the segment before, committed together by one atomic rename. Orbax checks nothing of
what it reads, so each array has a sha256 that covers its bytes, dtype, shape, name and step, and
every read compares it.
"""

import contextlib
import gc
import hashlib
import json
import logging
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

_UNFINISHED = "*.orbax-checkpoint-tmp*"
_CALLBACK_SECONDS = 0.2


class Segment(NamedTuple):
    """What one segment holds. Leading axes: snapshots [snapshot seed ...], state [seed ...], losses
    [step seed].
    """

    start: int
    """The step at which the segment before ended."""
    end: int
    steps: tuple[int, ...]
    """The steps of the snapshots."""
    snapshots: Flat
    """By dotted name; empty where there is no snapshot."""
    state: Flat
    """Empty where a trajectory was made otherwise than by training."""
    losses: Float[np.ndarray, "step seed"]
    """Of the parameters after start, ..., end - 1 updates."""


class Index(NamedTuple):
    """What a segment says of itself: read without touching its arrays."""

    start: int
    end: int
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    parameters: tuple[str, ...]
    hashes: dict[str, str]
    run: str | None
    """The identity hash of the experiment; None in the first runs, which didn't store it."""


def write(folder: Path, segment: Segment, seeds: tuple[int, ...], run: str) -> Path:
    """Saves a segment: the directory appears, whole, or not at all.

    Args:
        run: the identity hash of the experiment that it belongs to.

    Raises:
        RunError: where it can't be written (a full disk, an unwritable folder); nothing finished is
            touched.
    """
    path = segment_path(folder, segment.end)
    body = {
        "start": segment.start,
        "end": segment.end,
        "steps": list(segment.steps),
        "seeds": list(seeds),
        "parameters": list(segment.snapshots),
        "run": run,
        "hashes": _hashes(segment, seeds),
    }
    items = {
        "losses": ocp.args.PyTreeSave({"losses": segment.losses}),
        "index": ocp.args.JsonSave({**body, "digest": digest(body)}),
    }
    if segment.state:
        items["state"] = ocp.args.PyTreeSave(dict(segment.state))
    if segment.steps:
        items["snapshots"] = ocp.args.PyTreeSave(dict(segment.snapshots))
    try:
        with _quiet(), contextlib.closing(_checkpointer()) as checkpointer:
            checkpointer.save(path, ocp.args.Composite(**items))
    except (OSError, ValueError) as error:
        _remove_for_good(folder)
        reason = _short(str(error).strip().splitlines()[0])
        raise RunError(
            f"the segment at step {segment.end} can't be written to {folder} ({reason}); everything"
            " up to the segment before is kept: make room or mend the folder, then run the same"
            " command to go on from there"
        ) from error
    return path


def segment_path(folder: Path, end: int) -> Path:
    """Where the segment that ends at a step is."""
    return folder / f"{end:09d}"


def finished(folder: Path) -> list[int]:
    """The steps at which finished segments end, sorted. Anything else in the folder is unfinished."""
    return (
        sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        if folder.is_dir()
        else []
    )


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed or failed save left behind. Only under the writer's lock."""
    for path in folder.glob(_UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)


def _short(reason: str) -> str:
    """A long reason by its ends: what failed, and what the operating system said of it."""
    return reason if len(reason) <= 200 else f"{reason[:90]} ... {reason[-90:]}"


def _remove_for_good(folder: Path) -> None:
    """Removes a failed save, whose own threads may still be writing into it."""
    for _ in range(20):
        remove_unfinished(folder)
        time.sleep(0.05)
        if not list(folder.glob(_UNFINISHED)):
            return


def read_index(folder: Path, end: int) -> Index:
    """What the segment holds. Raises DamagedError where it isn't what was written."""
    path = segment_path(folder, end)
    with _reading(path):
        body = json.loads((path / "index" / "metadata").read_text())
        told = body.pop("digest")
        if told != digest(body) or body["end"] != end:
            raise ValueError("its index was changed")
        fields = {key: tuple(body[key]) for key in ("steps", "seeds", "parameters")}
        return Index(
            start=body["start"], end=end, hashes=body["hashes"], run=body.get("run"), **fields
        )


def read_losses(folder: Path, index: Index) -> Float[np.ndarray, "step seed"]:
    """The losses of the segment's updates."""
    path = segment_path(folder, index.end)
    with _reading(path):
        losses = _restore(path / "losses", ["losses"])["losses"]
        _check(index.hashes, f"losses@{index.end}", losses)
    return losses


def read_state(folder: Path, index: Index) -> Flat:
    """The train state at the segment's end, by dotted name."""
    path = segment_path(folder, index.end)
    names = [name.removeprefix("state@") for name in index.hashes if name.startswith("state@")]
    with _reading(path):
        state = _restore(path / "state", names) if names else {}
        for name, value in state.items():
            _check(index.hashes, f"state@{name}", value, index.end)
    return state


def read_snapshots(
    folder: Path,
    index: Index,
    names: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
) -> Flat:
    """Parameters [snapshot seed ...] by dotted name: all of them, or those named, of the snapshots
    at ``rows``.
    """
    path = segment_path(folder, index.end)
    rows = range(len(index.steps)) if rows is None else rows
    with _reading(path):
        stacks = _restore(path / "snapshots", list(index.parameters if names is None else names))
        for name, stack in stacks.items():
            if stack.shape[:2] != (len(index.steps), len(index.seeds)):
                raise ValueError(f"{name} has the shape {stack.shape}")
            for row in rows:
                for place, seed in enumerate(index.seeds):
                    _check(
                        index.hashes,
                        _snapshot_name(index.steps[row], seed, name),
                        stack[row, place],
                        index.steps[row],
                    )
    return {name: stack[list(rows)] for name, stack in stacks.items()}


def _hashes(segment: Segment, seeds: tuple[int, ...]) -> dict[str, str]:
    hashes = {
        f"state@{name}": _hash(f"state@{name}", value, segment.end)
        for name, value in segment.state.items()
    }
    hashes[f"losses@{segment.end}"] = _hash(f"losses@{segment.end}", segment.losses)
    for name, stack in segment.snapshots.items():
        for row, step in enumerate(segment.steps):
            for place, seed in enumerate(seeds):
                label = _snapshot_name(step, seed, name)
                hashes[label] = _hash(label, stack[row, place], step)
    return hashes


def _snapshot_name(step: int, seed: int, name: str) -> str:
    return f"{step}/{seed}/{name}"


def _hash(label: str, value: np.ndarray, step: int = -1) -> str:
    head = f"{label}|{step}|{value.dtype}|{value.shape}|".encode()
    return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()


def _check(hashes: dict[str, str], label: str, value: np.ndarray, step: int = -1) -> None:
    if hashes.get(label) != _hash(label, value, step):
        raise ValueError(f"{label} isn't what was written")


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _restore(path: Path, names: list[str]) -> Flat:
    """The named arrays alone. A name that Orbax doesn't find comes back as a ShapeDtypeStruct,
    without an error.
    """
    request = ocp.args.PyTreeRestore(
        item={name: jax.ShapeDtypeStruct((), np.float32) for name in names},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    with _quiet():
        found = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(path, args=request)
    for name in names:
        if not isinstance(found.get(name), np.ndarray):
            raise KeyError(f"{name} is missing")
    return {name: found[name] for name in names}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file raises into one error that names the segment."""
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
            f"segment {path.name} is damaged ({reason}): its numbers are not to be trusted. To"
            f" train it again from the segment before, remove {path} and every later one, then run"
            " the same command"
        ) from error


def _free_frames(error: BaseException | None) -> None:
    """Frees what the frames hold that a failure passed through, and those of the failures behind
    it.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's own log lines, and what its threads and callbacks raise after a failure, off
    the terminal.

    The failure itself is raised all the same. Callbacks of a failed read reach a closed event loop
        for a moment longer: they are
    waited for. Tasks of a failed save say what became of them when they are freed: they are, here.
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
