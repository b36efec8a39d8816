"""Known trajectories: two circuits that form in a known order, induction that forms as a formula
says, and a random walk.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from mi_jax.basics.errors import require
from mi_jax.basics.pytrees import dotted, parameter_count
from mi_jax.basics.streams import stream
from mi_jax.models import MLP
from mi_jax.planted.gromov import quadrature
from mi_jax.planted.induction import induction_parts, induction_weights
from mi_jax.planted.network import Flat
from mi_jax.tasks import ModularArithmetic, RepeatedSequences
from mi_jax.training.planting import PlantContext, PlantedTrajectory

_AHEAD = 2
_MOST_MOVES = 2e8
"""Of a random walk: 2.4 GB while they are added up."""


@dataclass(frozen=True)
class ScaledInduction(PlantedTrajectory):
    """The hand-made induction network while its previous-token head grows: beta rises from 0 in
    equal steps, all else is fixed.

    Position i attends to i - 1 by e^beta / (e^beta + i), which is one half at beta = log i.

    Truth:
        rate: beta of a step is rate times it.
        half: by position i, as a string, the (broken) step at which it attends to i - 1 by one
            half; where that is reached.

    Attributes:
        beta: of the previous-token head at the last step. match, gain: of the induction head (see
            ``induction``).
    """

    beta: float = 8.0
    match: float = 30.0
    gain: float = 20.0

    def __post_init__(self) -> None:
        for name in ("beta", "match", "gain"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name}={value}: must be a finite number above 0")

    def check(self, context: PlantContext) -> None:
        """Repeated sequences on the network of ``induction``."""
        require(
            isinstance(context.task, RepeatedSequences),
            f"scaled induction is of repeated_sequences, not {context.task}",
        )
        assert isinstance(context.task, RepeatedSequences)
        _, settings, _ = induction_parts(context.task)
        require(
            context.model == settings,
            f"scaled induction needs the model {settings}; mi_jax.planted.scaled_induction"
            " gives it",
        )

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """The same for all seeds."""
        assert isinstance(context.task, RepeatedSequences)
        task, settings, parts = induction_parts(context.task)
        flat = induction_weights(task, settings, parts, 1.0, self.match, self.gain)
        stacks = {name: np.repeat(value[None], len(steps), axis=0) for name, value in flat.items()}
        beta = (self.beta * steps / context.steps).astype(np.float32)
        stacks["blocks.0.attn.W_Q"] *= beta[:, None, None, None]
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """See the class."""
        rate = self.beta / context.steps
        last = 2 * context.task.length - 1 if isinstance(context.task, RepeatedSequences) else 0
        half = {str(i): math.log(i) / rate for i in range(1, last + 1) if math.log(i) <= self.beta}
        return {"kind": "scaled_induction", "rate": rate, "half": half}


@dataclass(frozen=True)
class TwoCircuits(PlantedTrajectory):
    """Modular addition solved at two frequencies, one circuit after the other, in a quadratic MLP.

    Half of the neurons belong to each frequency. All begin at the seed's own initial parameters
    theta_0; from its onset on a circuit's neurons go straight to where they solve the task at its
    frequency: theta = (1 - s) theta_0 + s theta*, where s rises from 0 at the onset to 1 ``width``
    steps later. The logits of theta* are scale sum_k cos(2 pi k (a + b - c) / p).

    Truth:
        order: the frequencies in the order of their onsets.
        onsets, formed: by frequency, as a string, the last step at which s is 0 and the first at
            which it is 1.
        births: by seed, by frequency, the first step from which on the frequency always holds more
            than twice an even share of the unembedding's power.

    Attributes:
        frequencies: two, from 1 to (p - 1) / 2. onsets: of each. width: steps from onset to end.
        scale: how much higher the right logit is than the mean, in nats and by frequency.
    """

    frequencies: tuple[int, int] = (3, 7)
    onsets: tuple[int, int] = (40, 120)
    width: int = 20
    scale: float = 20.0

    def __post_init__(self) -> None:
        require(
            self.frequencies[0] != self.frequencies[1],
            f"frequencies={self.frequencies}: must be two different ones",
        )
        require(min(self.onsets) >= 0, f"onsets={self.onsets}: must be steps from 0 on")
        require(self.width >= 1, f"width={self.width}: must be at least 1")
        require(0 < self.scale < math.inf, f"scale={self.scale}: must be a finite number above 0")

    def check(self, context: PlantContext) -> None:
        """Addition mod an odd p on a quadratic MLP of one hidden layer without biases."""
        task, model = context.task, context.model
        fits = isinstance(task, ModularArithmetic) and task.operation == "add" and task.p % 2 == 1
        require(fits, f"two circuits are of addition mod an odd p, not of {task}")
        plain = isinstance(model, MLP) and model == MLP(width=model.width) and model.width % 18 == 0
        require(
            plain,
            "two circuits need MLP(width=...) with 9 neurons for each frequency, or a multiple,"
            f" not {model}",
        )
        highest = task.inputs.classes // 2
        require(
            all(1 <= k <= highest for k in self.frequencies),
            f"frequencies={self.frequencies}: must be from 1 to {highest}",
        )
        require(
            max(self.onsets) + self.width <= context.steps,
            f"onsets={self.onsets} and width={self.width}: the run ends at step {context.steps},"
            " before both have formed",
        )

    def formed(self, steps: Int[np.ndarray, " step"]) -> Float[np.ndarray, "step 2"]:
        """s of both circuits."""
        return np.clip((steps[:, None] - np.array(self.onsets)[None]) / self.width, 0.0, 1.0)

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """See the class."""
        model = context.model
        assert isinstance(model, MLP)
        half, initial = model.width // 2, _initial(context, seed)
        shares = self.formed(steps).repeat(half, axis=1)
        circuits = [
            quadrature(context.task.inputs.classes, half, k, self.scale) for k in self.frequencies
        ]
        stacks: Flat = {}
        for name, begin in initial.items():
            axis = 0 if name == "unembed.W_U" else 1
            end = np.concatenate([circuit[name] for circuit in circuits], axis=axis)
            s = shares[:, :, None] if axis == 0 else shares[:, None, :]
            stacks[name] = ((1 - s) * begin[None] + s * end[None]).astype(np.float32)
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """See the class."""
        onsets = dict(
            sorted(zip(self.frequencies, self.onsets, strict=True), key=lambda pair: pair[1])
        )
        return {
            "kind": "two_circuits",
            "order": list(onsets),
            "onsets": {str(k): step for k, step in onsets.items()},
            "formed": {str(k): step + self.width for k, step in onsets.items()},
            "births": {str(seed): self._births(context, seed) for seed in seeds},
        }

    def _births(self, context: PlantContext, seed: int) -> dict[str, int]:
        steps = np.arange(context.steps + 1)
        W_U = self.parameters(context, seed, steps)["unembed.W_U"].astype(np.float64)
        power = (np.abs(np.fft.rfft(W_U, axis=2)[:, :, 1:]) ** 2).sum(axis=1)
        behind = power / power.sum(axis=1, keepdims=True) <= _AHEAD / power.shape[1]
        return {str(k): int(np.flatnonzero(behind[:, k - 1])[-1]) + 1 for k in self.frequencies}


@dataclass(frozen=True)
class RandomWalk(PlantedTrajectory):
    """A walk from the seed's initial parameters, which moves alike in every step: the null, in
    which nothing ever happens.

    theta_s = theta_0 + sigma (e_1 + ... + e_s), e normal; sigma is ``scale`` times the root mean
    square of the array's initial values, over the square root of the number of steps.

    Truth:
        transitions: none, an empty list.

    Attributes:
        scale: how far the walk has carried each array by the last step, in units of its initial
            size.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.scale < math.inf, f"scale={self.scale}: must be a finite number above 0")

    def check(self, context: PlantContext) -> None:
        """Any task and model, as long as all moves of a seed fit into memory."""
        moves = context.steps * _count(context)
        told = (
            f"a random walk of {context.steps} steps draws {moves:.2g} numbers a seed, at most"
            f" {_MOST_MOVES:.0e} are"
        )
        require(moves <= _MOST_MOVES, f"{told}; take fewer steps or a smaller model")

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """See the class."""
        initial, key = _initial(context, seed), stream(seed, "planted")
        count = sum(value.size for value in initial.values())
        moves = np.asarray(jax.random.normal(key, (context.steps, count)), np.float64)
        walked = np.concatenate([np.zeros((1, count)), np.cumsum(moves, axis=0)])[steps]
        ends = np.cumsum([value.size for value in initial.values()])
        stacks: Flat = {}
        for (name, begin), walk in zip(
            initial.items(), np.split(walked, ends[:-1], axis=1), strict=True
        ):
            sigma = self.scale * np.sqrt((begin**2).mean() / context.steps)
            stacks[name] = (begin[None] + sigma * walk.reshape(-1, *begin.shape)).astype(np.float32)
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """See the class."""
        return {"kind": "random_walk", "transitions": []}


PATHS: dict[str, type[PlantedTrajectory]] = {
    "scaled_induction": ScaledInduction,
    "two_circuits": TwoCircuits,
    "random_walk": RandomWalk,
}
"""Every planted path by name."""


def _count(context: PlantContext) -> int:
    """How many parameters the model has."""
    return parameter_count(
        jax.eval_shape(context.model.build(context.task.inputs).init, stream(0, "init"))
    )


def _initial(context: PlantContext, seed: int) -> dict[str, Float[np.ndarray, "..."]]:
    """The seed's initial parameters, as training would begin with them, by dotted name in float64."""
    params = context.model.build(context.task.inputs).init(stream(seed, "init"))
    return {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
