"""Networks of a run as the package that they were written with has them."""

from typing import Any

from mi_jax.basics.errors import ConfigError
from mi_jax.models.modules import ModuleArchitecture
from mi_jax.runs.run import Run


def as_module(run: Run, step: int, seed: int | None = None) -> Any:
    """Give a snapshot of a run back as the network that its user wrote.

    Args:
        run: a run whose model is an ``NnxModule``, ``LinenModule`` or ``EquinoxModule``.
        step: step of a stored snapshot.
        seed: label of the seed; needed if there are several.

    Returns:
        The ``nnx.Module`` or ``equinox.Module`` as ``module`` of the settings makes it, with the
        parameters of the snapshot; the ``linen.Module`` bound to them. It is in training mode, if
        it has modes.

    Raises:
        ConfigError: if the model is none of these.
        RunError: for a step that is no snapshot, or a seed that the run does not have.

    Example:
        network = mi_jax.as_module(run, run.steps[-1], seed=0)
        logits = network(tokens)
    """
    model = run.experiment.model
    if not isinstance(model, ModuleArchitecture):
        raise ConfigError(
            f"The model of this run is {type(model).__name__}, which was not written with Flax or"
            " Equinox. run.apply(run.params(step, seed), inputs) computes it."
        )
    if seed is None and len(run.seeds) > 1:
        raise ConfigError(f"The run has several seeds. Choose one of {list(run.seeds)}.")
    return model.as_module(run.experiment.task.inputs, run.params(step, seed))
