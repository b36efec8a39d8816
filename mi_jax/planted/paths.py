"""Known trajectories, planted in place of training.

Two circuits form in a known order, induction forms by a formula, and a random walk forms nothing.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, parameter_count
from mi_jax.basics.streams import stream
from mi_jax.models import MLP
from mi_jax.planted.gromov import quadrature
from mi_jax.planted.induction import induction_parts, induction_weights
from mi_jax.planted.network import Flat
from mi_jax.tasks import ModularArithmetic, RepeatedSequences
from mi_jax.training.planting import PlantContext, PlantedTrajectory

_AHEAD = 2
"""A frequency among three or more counts as born once it holds more than this many times an even
share of power. Of two, it counts half-way from an even share to all, as in ``dynamics.births``.
"""

_ROUNDING = 1e-6
"""Relative rounding of a share of power of float32 weights, with room to spare. A share that equals
the threshold does not exceed it: at p = 9 each of two circuits ends at exactly one half.
"""

_MOST_MOVES = 2e8
"""The most numbers that a random walk draws per seed; they take 2.4 GB while they are added up."""


@dataclass(frozen=True)
class ScaledInduction(PlantedTrajectory):
    """The hand-made induction network while its previous-token head grows.

    beta rises from 0 in equal steps; everything else is fixed. Position i attends to i - 1 by
    e^beta / (e^beta + i), which is one half at beta = log i.

    Truth:
        kind: "scaled_induction".
        rate: beta per step.
        half: by position i, as a string, the fractional step at which i attends to i - 1 by one
            half, for the positions that reach it.

    Attributes:
        beta: the score of the previous token at the last step.
        match: the score of a match of the induction head (see ``induction``).
        gain: the factor on the token that the induction head writes.
    """

    beta: float = 8.0
    match: float = 30.0
    gain: float = 20.0

    def __post_init__(self) -> None:
        for name in ("beta", "match", "gain"):
            value = getattr(self, name)
            _check_positive(name, value)

    def check(self, context: PlantContext) -> None:
        """Refuses anything but repeated sequences on the network of ``induction``."""
        if not isinstance(context.task, RepeatedSequences):
            raise ConfigError(
                f"Scaled induction needs the task repeated_sequences, not {context.task}. Use"
                " mi_jax.planted.scaled_induction, which sets task and model."
            )
        settings, _ = induction_parts(context.task)
        if context.model != settings:
            raise ConfigError(
                f"Scaled induction needs the model {settings}, not {context.model}. Use"
                " mi_jax.planted.scaled_induction, which sets task and model."
            )

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """Gives the parameters at some steps.

        Args:
            context: the task, model and number of steps.
            seed: unused, since all seeds have the same parameters.
            steps: the steps to give.

        Returns:
            By dotted name, float32 arrays [step ...].
        """
        task = context.task
        assert isinstance(task, RepeatedSequences)
        settings, parts = induction_parts(task)
        flat = induction_weights(task, settings, parts, 1.0, self.match, self.gain)
        stacks = {name: np.repeat(value[None], len(steps), axis=0) for name, value in flat.items()}
        beta = (self.beta * steps / context.steps).astype(np.float32)
        stacks["blocks.0.attn.W_Q"] *= beta[:, None, None, None]
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """Gives the facts that the class documents under Truth.

        Args:
            context: the task, model and number of steps.
            seeds: the seeds of the run.
        """
        rate = self.beta / context.steps
        last = context.task.inputs.positions - 1
        half = {str(i): math.log(i) / rate for i in range(1, last + 1) if math.log(i) <= self.beta}
        return {"kind": "scaled_induction", "rate": rate, "half": half}


@dataclass(frozen=True)
class TwoCircuits(PlantedTrajectory):
    """Modular addition solved at two frequencies, one circuit after the other, in a quadratic MLP.

    Half of the neurons belong to each frequency. All start at the seed's own initial parameters
    theta_0. From its onset on, a circuit's neurons move in a straight line to weights theta* that
    solve the task at its frequency: theta = (1 - s) theta_0 + s theta*, where s rises from 0 at the
    onset to 1 ``width`` steps later. The logits of theta* are
    scale sum_k cos(2 pi k (a + b - c) / p).

    Truth:
        kind: "two_circuits".
        order: the frequencies in the order of their onsets.
        onsets: by frequency, as a string, the last step at which s is 0.
        formed: by frequency, as a string, the first step at which s is 1.
        births: by seed and frequency, as strings, the first step from which on the frequency always
            holds more than twice an even share of the unembedding's power; None where it never
            does. For p below 11 no circuit is born: each ends with half of the power, and two even
            shares of at most four frequencies are no less.

    Attributes:
        frequencies: two frequencies from 1 to (p - 1) / 2.
        onsets: the step at which each circuit starts to form.
        width: the number of steps from onset to end.
        scale: the height of the right logit above the mean, in nats, per frequency.
    """

    frequencies: tuple[int, int] = (3, 7)
    onsets: tuple[int, int] = (40, 120)
    width: int = 20
    scale: float = 20.0

    def __post_init__(self) -> None:
        if self.frequencies[0] == self.frequencies[1]:
            raise ConfigError(f"frequencies={self.frequencies}: must be two different ones.")
        if not min(self.onsets) >= 0:
            raise ConfigError(f"onsets={self.onsets}: must be steps from 0 on.")
        if not self.width >= 1:
            raise ConfigError(f"width={self.width}: must be at least 1.")
        _check_positive("scale", self.scale)

    def check(self, context: PlantContext) -> None:
        """Refuses anything but addition mod an odd p on a quadratic MLP that fits both circuits.

        The MLP must have one hidden layer, no biases, and a multiple of 18 neurons.
        """
        task, model = context.task, context.model
        if not isinstance(task, ModularArithmetic) or task.operation != "add" or task.p % 2 == 0:
            raise ConfigError(
                f"Two circuits need addition mod an odd p, not {task}. Use"
                " mi_jax.planted.two_circuits, which sets task and model."
            )
        if not isinstance(model, MLP) or model != MLP(width=model.width) or model.width % 18:
            raise ConfigError(
                "Two circuits need MLP(width=...) with 9 neurons for each frequency, or a multiple."
                f" The model is {model}. Use MLP(width=18)."
            )
        highest = task.inputs.classes // 2
        if not all(1 <= k <= highest for k in self.frequencies):
            raise ConfigError(f"frequencies={self.frequencies}: must be from 1 to {highest}.")
        if max(self.onsets) + self.width > context.steps:
            raise ConfigError(
                f"The run ends at step {context.steps}, before both circuits have formed. They form"
                f" at onsets={self.onsets} plus width={self.width} steps. Give more steps, or"
                " earlier onsets."
            )

    def formed(self, steps: Int[np.ndarray, " step"]) -> Float[np.ndarray, "step 2"]:
        """The progress s of both circuits at the given steps."""
        return np.clip((steps[:, None] - np.array(self.onsets)[None]) / self.width, 0.0, 1.0)

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """Gives the parameters at some steps.

        Args:
            context: the task, model and number of steps.
            seed: the seed of the initial parameters.
            steps: the steps to give.

        Returns:
            By dotted name, float32 arrays [step ...].
        """
        model = context.model
        assert isinstance(model, MLP)
        half, initial = model.width // 2, _initial(context, seed)
        progress = self.formed(steps).repeat(half, axis=1)
        circuits = [
            quadrature(context.task.inputs.classes, half, k, self.scale) for k in self.frequencies
        ]
        stacks: Flat = {}
        for name, start in initial.items():
            # Neurons are the rows of the unembedding, and the columns of the embeddings.
            axis = 0 if name == "unembed.W_U" else 1
            end = np.concatenate([circuit[name] for circuit in circuits], axis=axis)
            s = progress[:, :, None] if axis == 0 else progress[:, None, :]
            stacks[name] = ((1 - s) * start[None] + s * end[None]).astype(np.float32)
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """Gives the facts that the class documents under Truth.

        Args:
            context: the task, model and number of steps.
            seeds: the seeds of the run.
        """
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

    def _births(self, context: PlantContext, seed: int) -> dict[str, int | None]:
        """The births of one seed, by frequency; None for never."""
        steps = np.arange(context.steps + 1)
        W_U = self.parameters(context, seed, steps)["unembed.W_U"].astype(np.float64)
        power = (np.abs(np.fft.rfft(W_U, axis=2)[:, :, 1:]) ** 2).sum(axis=1)
        shares = power / power.sum(axis=1, keepdims=True)
        competitors = power.shape[1]
        least = min(_AHEAD / competitors, (1 + 1 / competitors) / 2)
        ahead = shares > least * (1 + _ROUNDING)
        return {str(k): _since(ahead[:, k - 1]) for k in self.frequencies}


@dataclass(frozen=True)
class RandomWalk(PlantedTrajectory):
    """A random walk from the seed's initial parameters: the null, in which nothing happens.

    theta_s = theta_0 + sigma (e_1 + ... + e_s) with standard normal e. sigma is ``scale`` times the
    root mean square of the array's initial values, over the square root of the number of steps, so
    every step moves alike.

    Truth:
        kind: "random_walk".
        transitions: an empty list.

    Attributes:
        scale: how far the walk has carried each array by the last step, relative to the root mean
            square of its initial values.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)

    def check(self, context: PlantContext) -> None:
        """Refuses a walk whose moves do not fit into memory."""
        moves = context.steps * _count(context)
        if moves > _MOST_MOVES:
            raise ConfigError(
                f"A random walk of {context.steps} steps draws {moves:.2g} numbers per seed. The"
                f" limit is {_MOST_MOVES:.0e}. Take fewer steps or a smaller model."
            )

    def parameters(self, context: PlantContext, seed: int, steps: Int[np.ndarray, " step"]) -> Flat:
        """Gives the parameters at some steps.

        Args:
            context: the task, model and number of steps.
            seed: the seed of the initial parameters and of the walk.
            steps: the steps to give.

        Returns:
            By dotted name, float32 arrays [step ...].
        """
        initial, key = _initial(context, seed), stream(seed, "planted")
        count = sum(value.size for value in initial.values())
        # Every move is drawn, whichever steps are asked for, and summed in float64: the bits of a
        # step do not depend on how a run is cut into segments.
        moves = np.asarray(jax.random.normal(key, (context.steps, count)), np.float64)
        walked = np.concatenate([np.zeros((1, count)), np.cumsum(moves, axis=0)])[steps]
        ends = np.cumsum([value.size for value in initial.values()])
        stacks: Flat = {}
        for (name, start), walk in zip(
            initial.items(), np.split(walked, ends[:-1], axis=1), strict=True
        ):
            sigma = self.scale * np.sqrt((start**2).mean() / context.steps)
            stacks[name] = (start[None] + sigma * walk.reshape(-1, *start.shape)).astype(np.float32)
        return stacks

    def truth(self, context: PlantContext, seeds: tuple[int, ...]) -> dict[str, Any]:
        """Gives the facts that the class documents under Truth.

        Args:
            context: the task, model and number of steps.
            seeds: the seeds of the run.
        """
        return {"kind": "random_walk", "transitions": []}


PATHS: dict[str, type[PlantedTrajectory]] = {
    "scaled_induction": ScaledInduction,
    "two_circuits": TwoCircuits,
    "random_walk": RandomWalk,
}
"""Every planted trajectory by registry name."""


def _since(true: Bool[np.ndarray, " step"]) -> int | None:
    """The first step from which on a condition is always true; None where it ends false."""
    last_false = int(np.flatnonzero(~true).max(initial=-1))
    return last_false + 1 if last_false + 1 < len(true) else None


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value}: must be a finite number above 0.")


def _count(context: PlantContext) -> int:
    """The number of parameters of the model."""
    return parameter_count(
        jax.eval_shape(context.model.build(context.task.inputs).init, stream(0, "init"))
    )


def _initial(context: PlantContext, seed: int) -> dict[str, Float[np.ndarray, "..."]]:
    """The seed's initial parameters by dotted name, in float64: those that training starts with."""
    params = context.model.build(context.task.inputs).init(stream(seed, "init"))
    return {name: np.asarray(value, np.float64) for name, value in dotted(params).items()}
