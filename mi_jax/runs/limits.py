"""Memory and disk that a run takes, from shapes alone, and the refusal of what no machine can hold.

Nothing that grows with the settings is made here: sizes of data come from ``Task.size``, those of
parameters from ``Architecture.shapes``, and a model of many layers is measured on two and three.
"""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mi_jax.basics.errors import RunError
from mi_jax.basics.precision import computing_in
from mi_jax.basics.pytrees import byte_count
from mi_jax.basics.streams import streams
from mi_jax.contracts import Architecture, Batch, TaskSize, batch_loss
from mi_jax.runs.experiment import Experiment
from mi_jax.training.state import Parts, Program, SeedMode

_LAYER_BYTES = 2**19
"""Bytes that the compiler takes for a layer, about: each is a piece of program of its own."""

_TRACED_LAYERS = 3
"""Layers of the deeper of the two models on which one of very many layers is measured."""

_HOPELESS_BYTES = 2**45
"""From here on, sizes are only counted: nothing is traced to know the rest more exactly."""

_SEGMENT_BYTES = 2**16
"""Bytes of files that a segment takes beside its arrays."""


_Sizes = tuple[int, ...]


class Estimate(NamedTuple):
    """Memory and disk of a run, in bytes. Activations are right within a factor of 2, about.

    Attributes:
        parameters: number of parameters of one seed.
        data: the task's data, and its evaluation.
        making: what making the data takes, for a while.
        state: parameters and optimizer state of all seeds.
        activations: what one step keeps for its gradients, and the gradients.
        snapshots: snapshots that wait for being written.
        program: what compiling takes beyond a program of a few layers.
        disk: snapshots and train states of the whole run.
        operations: floating-point operations of the products of one step of all seeds.
        needs_more: whether activations were not counted, because the rest is too much already.
    """

    parameters: int
    data: int
    making: int
    state: int
    activations: int
    snapshots: int
    program: int
    disk: int
    operations: int
    needs_more: bool = False

    @property
    def memory(self) -> int:
        """Bytes of memory at once, about."""
        # The state is held twice, before and after a chunk; snapshots are stacked to be written.
        training = 2 * self.state + self.activations + 2 * self.snapshots + self.program
        return self.data + max(self.making, training)

    @property
    def certain(self) -> int:
        """Bytes of memory that are needed even if activations take half of what is estimated."""
        return self.memory - self.activations // 2

    def text(self) -> str:
        """The memory and what it is for, such as ``2.1 GiB of memory (data 0.1 MiB, ...)``."""
        parts = {
            "data": self.data,
            "making the data": self.making,
            "parameters and optimizer state": self.state,
            "activations": self.activations,
            "snapshots": self.snapshots,
            "compiling": self.program,
        }
        largest = sorted(parts, key=lambda name: -parts[name])[:3]
        listed = ", ".join(f"{name} {size_text(parts[name])}" for name in largest if parts[name])
        least = "at least " if self.needs_more else "about "
        return f"{least}{size_text(self.memory)} of memory ({listed})"


def size_text(count: int) -> str:
    """A number of bytes in the unit that suits it.

    Example:
        >>> size_text(3 * 2**29)
        '1.5 GiB'
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(int(math.log2(count) // 10), len(units) - 1) if count >= 1 else 0
    number = count / 1024**power
    return f"{number:,.1f} {units[power]}" if number < 10_000 else f"{number:.1e} {units[power]}"


def estimate(
    experiment: Experiment, seed_mode: SeedMode | None = None, *, traced: bool = True
) -> Estimate:
    """Estimates what training an experiment takes. Builds nothing, and takes well under a second.

    The data of a task that does not tell its size (``Task.size``) are left out.

    Args:
        experiment: the settings.
        seed_mode: how seeds are trained; the faster one on this device by default.
        traced: trace the model and the optimizer for the size of activations and state. Otherwise
            both are bounded from above by counting.

    Raises:
        ConfigError: if the model does not accept the task's inputs.
    """
    task, seeds = experiment.task, len(experiment.seeds)
    size = task.size() or TaskSize(0, 0, 0, 0)
    each = seeds if task.per_seed else 1
    data = each * (size.data + size.evaluation)
    itemsize = 8 if experiment.precision == "float64" else 4
    parameters = _parameter_count(experiment)
    # Three products with every parameter, of two operations each, at every position.
    operations = 6 * parameters * size.batch * task.inputs.positions
    at_once = seeds if _vmapped(experiment, seed_mode) else 1
    needs_more = seeds * parameters * itemsize + data + size.making > _HOPELESS_BYTES
    if needs_more:
        state, residuals = parameters * itemsize, 0
    elif not traced:
        # No optimizer here keeps more than three arrays per parameter, and each value that is kept
        # takes an operation at least.
        state, residuals = 4 * parameters * itemsize, operations * itemsize
    else:
        state, residuals, operations = _over_layers(
            experiment, lambda lower: _step_sizes(lower, size.batch)
        )
    snapshot = seeds * parameters * itemsize
    count = len(experiment.snapshots())
    storage, steps = experiment.storage, experiment.steps
    waiting = min(count, storage.snapshots, max(1, int(storage.megabytes * 2**20 // snapshot)))
    segments = min(steps, max(storage.states, -(-count // waiting)))
    states = 0 if experiment.path is not None else segments * seeds * state
    return Estimate(
        parameters=parameters,
        data=data,
        making=size.making,
        state=seeds * state,
        activations=at_once * (residuals + parameters * itemsize + size.drawing),
        snapshots=waiting * snapshot,
        program=_LAYER_BYTES * max(0, _layers(experiment.model) - _TRACED_LAYERS),
        disk=count * snapshot + states + segments * _SEGMENT_BYTES,
        operations=seeds * operations,
        needs_more=needs_more,
    )


def check_fits(
    experiment: Experiment, out: str | os.PathLike[str] | None, seed_mode: SeedMode | None = None
) -> None:
    """Refuses to train what this machine cannot hold, before anything is built or written.

    Args:
        experiment: the settings.
        out: the folder of a new run, whose disk is looked at; None for a run that is resumed.
        seed_mode: how seeds are trained; the faster one on this device by default.

    Raises:
        RunError: with the estimate, and what the machine has.
        ConfigError: if the model does not accept the task's inputs.
    """
    bound = estimate(experiment, seed_mode, traced=False)
    disk_suffices = out is None or bound.disk < free_disk(out)
    if bound.memory < machine_memory() // 4 and disk_suffices:
        return
    refuse_too_large(estimate(experiment, seed_mode), out)


def refuse_too_large(needed: Estimate, out: str | os.PathLike[str] | None) -> None:
    """Raises RunError if a run takes more memory or disk than this machine has.

    Args:
        needed: the estimate.
        out: a folder on the disk that the run is written to, which need not exist yet; None to
            look at memory alone.
    """
    memory = machine_memory()
    if needed.certain > memory:
        raise RunError(
            f"This run would take {needed.text()}, and this machine has {size_text(memory)}."
            " Nothing was written. Choose a smaller task or model, fewer seeds, or a smaller"
            " batch_size."
        )
    if out is None:
        return
    disk = free_disk(out)
    if needed.disk > disk:
        raise RunError(
            f"This run would take about {size_text(needed.disk)} of disk, and {Path(out).resolve()}"
            f" has {size_text(disk)} free. Nothing was written. Keep fewer snapshots (schedule) or"
            " fewer train states (storage.states), or give another --out."
        )


def check_readable(experiment: Experiment) -> None:
    """Refuses to measure a run whose examples or parameters this machine cannot hold.

    Raises:
        RunError: with the estimate, and what the machine has.
        ConfigError: if the model does not accept the task's inputs.
    """
    bound, memory = estimate(experiment, traced=False), machine_memory()
    needed = bound.data + bound.making + bound.program + bound.snapshots
    if needed > memory:
        raise RunError(
            f"Measuring this run would take at least {size_text(needed)} of memory for the examples"
            f" of its task and the parameters of its model, and this machine has"
            f" {size_text(memory)}. Measure it on a larger one."
        )


def machine_memory() -> int:
    """Bytes of memory that this process may use: the device's, the container's or the machine's."""
    limits = [_device_memory(), _physical_memory()]
    for file in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limit for limit in limits if limit)


def free_disk(path: str | os.PathLike[str]) -> int:
    """Free bytes of the disk that a path lies on, or will lie on."""
    for folder in (Path(path).absolute(), *Path(path).absolute().parents):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        # Some file systems, such as /proc, have no size. Writing there says what is wrong.
        return usage.free if usage.total else 2**63
    return 2**63


def _device_memory() -> int:
    """Bytes of the device's own memory; 0 for a CPU, which has none."""
    statistics = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    return (statistics or {}).get("bytes_limit", 0)


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not told by this system
        return 2**63


def _vmapped(experiment: Experiment, seed_mode: SeedMode | None) -> bool:
    if seed_mode is not None:
        return seed_mode == "vmapped"
    return len(experiment.seeds) > 1 and jax.default_backend() != "cpu"


def _layers(model: Architecture) -> int:
    """Number of layers; 0 where they do not repeat."""
    return 0 if model.repeated is None else getattr(model, model.repeated)


def _over_layers(experiment: Experiment, measure: Callable[[Experiment], _Sizes]) -> _Sizes:
    """Sizes that are linear in the number of layers, measured on models of few.

    Args:
        experiment: the settings.
        measure: gives the sizes for an experiment.
    """
    layers, name = _layers(experiment.model), experiment.model.repeated
    if name is None or layers <= _TRACED_LAYERS:
        return measure(experiment)
    fewer, more = (
        measure(replace(experiment, model=replace(experiment.model, **{name: count})))
        for count in (_TRACED_LAYERS - 1, _TRACED_LAYERS)
    )
    return _line(fewer, more, layers - _TRACED_LAYERS + 1)


def _line(first: _Sizes, second: _Sizes, at: int) -> _Sizes:
    """Sizes that are linear in a number, from those at 0 and 1; never less than those at 0."""
    return tuple(max(x, x + at * (y - x)) for x, y in zip(first, second, strict=True))


def _parameter_count(experiment: Experiment) -> int:
    def count(lower: Experiment) -> _Sizes:
        shapes = lower.model.shapes(lower.task.inputs)
        return (sum(math.prod(shape) for shape in shapes.values()),)

    return _over_layers(experiment, count)[0]


def _parts(experiment: Experiment) -> Parts:
    """The parts of a run of one seed, as far as shapes need them."""
    return Parts(
        experiment.task,
        experiment.build(),
        experiment.loss,
        experiment.optimizer,
        experiment.seeds[:1],
        experiment.steps,
        precision=experiment.precision,
    )


def _step_sizes(experiment: Experiment, batch_size: int) -> _Sizes:
    """Sizes of one step of one seed: bytes of parameters and optimizer state, bytes that the
    forward pass keeps for the backward pass, and operations of products.

    The last two are linear in the number of examples, and measured on batches of few.
    """
    state = byte_count(Program(_parts(experiment)).template)
    few, more = (_traced(experiment, batch_size, 8 * times) for times in (1, 2))
    # _line is right below 8 examples too, but for its lower bound.
    return (state, *_line(few, more, max(0, -(-batch_size // 8) - 1)))


def _traced(experiment: Experiment, batch_size: int, traced: int) -> _Sizes:
    """Bytes kept by a batch of ``traced`` examples, and operations of the products of a step.

    Args:
        experiment: the settings.
        batch_size: the true number of examples, which chooses the route.
        traced: the number of examples to trace.
    """
    task, parts = experiment.task, _parts(experiment)
    inputs, read = task.inputs, task.read
    route = parts.model.cheapest(inputs, (batch_size, inputs.positions), read)
    apply = parts.model.along(route)
    is_vector = inputs.kind == "floats"
    shape = (traced, inputs.positions, *((inputs.features,) if is_vector else ()))
    answers = (traced, len(read))

    def backward(params: Any, tokens: Any, targets: Any, weights: Any) -> Any:
        def loss(theta: Any) -> Any:
            outputs = apply(theta, tokens, taps=None, positions=read)
            return batch_loss(parts.loss, outputs, Batch(tokens, targets, weights))

        value, pull_back = jax.vjp(loss, params)
        return pull_back, pull_back(jnp.ones_like(value))

    params = jax.eval_shape(parts.model.init, streams(parts.seeds, "init")[0])
    arrays = (
        jax.ShapeDtypeStruct(shape, jnp.float32 if is_vector else jnp.int32),
        jax.ShapeDtypeStruct(answers, jnp.int32),
        jax.ShapeDtypeStruct(answers, jnp.float32),
    )
    with computing_in(experiment.precision):
        program, (kept, _) = jax.make_jaxpr(backward, return_shape=True)(params, *arrays)
    return byte_count(kept), _product_operations(program.jaxpr)


def _product_operations(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products of a traced program."""
    operations = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            operations += 2 * math.prod(out) * math.prod(left[axis] for axis in summed)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                operations += _product_operations(inner)
    return operations
