"""The history that a run belongs to: the runs that it was forked from, and the references there.

References belong to the history, not to the folder: whatever is read of a network at a step is the
same in a run, in its forks and in its zooms.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from mi_jax.basics.errors import DamagedError, RunError
from mi_jax.basics.records import digest
from mi_jax.training.trajectory import Trajectory

ReferenceChoice = Literal["root", "own"]
"""The final model of retrospective readings: "root", the last snapshot of the run at the root of
the history, which is the run itself unless it is a fork or a zoom; "own", that of the run itself.
"""

OWN_SUFFIX = "_own"
"""Suffix of the variables of retrospective readings whose reference is the run's own end."""


class Snapshot(NamedTuple):
    """A stored snapshot that readings are compared with.

    Attributes:
        trajectory: the run that holds it.
        step: its step.
    """

    trajectory: Trajectory
    step: int

    @property
    def attrs(self) -> dict[str, Any]:
        """Identity of the snapshot: the run's hash, the step and the hash of the parameters."""
        hashes = {
            label: sha256
            for label, sha256 in self.trajectory.hashes().items()
            if label.startswith(f"{self.step}/")
        }
        return {
            "reference_run": self.trajectory.record["hash"],
            "reference_step": self.step,
            "reference_hash": digest(hashes),
        }


class History:
    """A run with the runs that it was forked from.

    Attributes:
        trajectory: the run.
        ancestors: the runs that it descends from, the parent first; they end where one is missing.
        broken: a sentence that says which ancestor cannot be read; empty where all can.
    """

    def __init__(self, trajectory: Trajectory):
        self.trajectory = trajectory
        self.ancestors: list[Trajectory] = []
        self.broken = ""
        child = trajectory
        while child.parent is not None:
            parent = _opened(child)
            if parent is None:
                self.broken = f"The run {child.parent[0]}, which {child.path} was forked from, is"
                self.broken += " not there any more or was replaced."
                break
            self.ancestors.append(parent)
            child = parent

    @cached_property
    def no_final(self) -> str:
        """A sentence that says why the history has no final model; empty where it has one.

        The end of a fork or a zoom is no substitute: it would compare the same network at the same
        step with another model than the parent does.
        """
        if self.broken:
            return self.broken
        if not self.ancestors:
            return ""
        root = self.ancestors[-1]
        try:
            unfinished = root.done < root.last or not len(root.steps)
        except DamagedError as error:
            return str(error)
        if unfinished:
            return f"The run {root.path}, at the root of this history, is not trained to its end."
        return ""

    @cached_property
    def departs(self) -> bool:
        """Whether the run learns something that its parent does not: it has interventions of its
        own, or goes on beyond the parent's last step. A zoom does neither.

        It is recorded when a fork is made; of a fork of an earlier version it is found out from the
        parent, and taken to be so where that is missing.
        """
        origin = self.trajectory.record.get("parent")
        if origin is None:
            return False
        if "departs" in origin:
            return origin["departs"]
        if not self.ancestors:
            return True
        own, parents = (
            trajectory.record["experiment"].get("interventions", [])
            for trajectory in (self.trajectory, self.ancestors[0])
        )
        changed = any(intervention not in parents for intervention in own)
        return changed or self.trajectory.last > self.ancestors[0].last

    def final(self, choice: ReferenceChoice = "root") -> Snapshot | None:
        """The snapshot that serves as the final model; None where there is none (``no_final``).

        Args:
            choice: which end; see ``ReferenceChoice``.
        """
        if choice == "own":
            return Snapshot(self.trajectory, int(self.trajectory.steps[-1]))
        if self.no_final:
            return None
        root = self.ancestors[-1] if self.ancestors else self.trajectory
        return Snapshot(root, int(root.steps[-1]))

    def earlier(self) -> list[tuple[Trajectory, Int[np.ndarray, " step"]]]:
        """The snapshots of the history before the first one of the run, the oldest first.

        Returns:
            Ancestors with the steps that are read of each: those before the first step of the next
            one. Empty for a run that begins its history. Where an ancestor is missing, they begin
            after it.
        """
        parts, first = [], int(self.trajectory.steps[0])
        for ancestor in self.ancestors:
            steps = ancestor.steps[ancestor.steps < first]
            if len(steps):
                parts.insert(0, (ancestor, steps))
                first = int(steps[0])
        return parts

    def before(self) -> Snapshot | None:
        """The last snapshot of the history before the first one of the run; None for a run that
        begins its history, and where the ancestor that holds it is missing.
        """
        parts = self.earlier()
        return Snapshot(parts[-1][0], int(parts[-1][1][-1])) if parts else None

    def references(self, choice: ReferenceChoice = "root") -> frozenset[str]:
        """Names of the references that readings of the run may use.

        Args:
            choice: which end is the final model.
        """
        names = {"initial", "previous", "final"}
        return frozenset(names if choice == "own" or not self.no_final else names - {"final"})


def _opened(child: Trajectory) -> Trajectory | None:
    """The run that a fork was forked from, where it is or beside the fork; None if it is neither.

    A run and its forks may have been moved together.
    """
    assert child.parent is not None
    path, expected = child.parent[0], child.record["parent"]["hash"]
    for folder in (path, child.path.parent / Path(path).name):
        try:
            parent = Trajectory(folder)
        except RunError:
            continue
        # The hash does not cover seeds: a run that took the parent's place may lack the child's.
        has_seeds = set(child.seeds) <= set(parent.seeds)
        if parent.record["hash"] == expected and has_seeds and parent.path != child.path:
            return parent
    return None
