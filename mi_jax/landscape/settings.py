"""Settings of localised SGLD: step size, temperature, localisation and chains as one value."""

import functools
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import jax
from jax.core import Tracer

from mi_jax.basics.dims import Number
from mi_jax.basics.errors import ConfigError, check_choice, nearest, require, whole
from mi_jax.basics.fields import warn_old_name
from mi_jax.landscape.exact import Real

ChainMode = Literal["vmapped", "mapped"]


@dataclass(frozen=True)
class RMSProp:
    """RMSProp preconditioner of SGLD (arXiv 2507.21449, as implemented in devinterp 1.3.2).

    With g the gradient of the mean loss and V = 0 at the start,

        V <- alpha V + (1 - alpha) g^2
        G = 1 / (sqrt(V) + eps)

    As published, V does not include the gradient of the localisation, and the drift term that a
    changing G would need for an exact posterior is left out.

    Attributes:
        alpha: decay of the running second moment per step, 0 <= alpha < 1.
        eps: positive constant added to sqrt(V), in the unit of the gradient.

    Raises:
        ConfigError: if alpha or eps is outside its range.
    """

    alpha: float = 0.99
    eps: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.alpha < 1, f"RMSProp: alpha={self.alpha} must be at least 0 and below 1.")
        require(self.eps > 0, f"RMSProp: eps={self.eps} must be positive.")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["n_beta", "gamma", "epsilon"],
    meta_fields=["burn_in", "draws", "chains", "batch_size", "preconditioner", "chain_mode"],
)
@dataclass(frozen=True)
class SGLDSettings:
    """Settings of the SGLD chains that estimate a learning coefficient.

    The defaults are those of the measure ``learning_coefficient``. ``n_beta``, ``gamma`` and
    ``epsilon`` are arguments of the compiled program, so that other values compile nothing; inside
    a compiled program they may be traced. The other fields are compiled into it.

    Attributes:
        n_beta: number of examples times the inverse temperature; None: n / ln n.
        gamma: strength of the localisation gamma/2 |w - w*|^2, 0 (none) or more. It lowers the
            estimate unless n_beta times the curvature is far larger than gamma
            (``exact.quadratic``).
        epsilon: step size, positive.
        burn_in: steps per chain, 0 or more, that are discarded before the first draw.
        draws: steps per chain that count; with fewer than 8 there is no R-hat.
        chains: number of independent chains.
        batch_size: examples per step, drawn with replacement by each chain independently; None:
            all examples at every step.
        preconditioner: RMSProp(...), or None for plain SGLD.
        chain_mode: "vmapped" runs all chains in one batched program (faster for small models);
            "mapped" runs them one after another (for models whose matrix products are large).

    Raises:
        ConfigError: if a value is of the wrong type or outside its range.

    Example:
        >>> SGLDSettings(gamma=10.0, epsilon=1e-3).draws
        150
    """

    n_beta: Number | int | None = None
    gamma: Number | int = 1000.0
    epsilon: Number | int = 5e-5
    burn_in: int = 50
    draws: int = 150
    chains: int = 4
    batch_size: int | None = None
    preconditioner: RMSProp | None = None
    chain_mode: ChainMode = "vmapped"

    def __post_init__(self) -> None:
        if self.n_beta is not None:
            check_positive("n_beta", self.n_beta)
        check_positive("epsilon", self.epsilon)
        check_number("gamma", self.gamma)
        if not _unknown(self.gamma) and not 0 <= self.gamma < math.inf:
            raise ConfigError(f"gamma={self.gamma}: must be at least 0 (no localisation).")
        for name, least in (("burn_in", 0), ("draws", 1), ("chains", 1)):
            value = getattr(self, name)
            require(whole(name, value) >= least, f"{name}={value}: must be at least {least}.")
            # NumPy integers become ints, so that equal settings share one compiled program.
            object.__setattr__(self, name, int(value))
        require(
            self.batch_size is None or self.batch_size > 0,
            f"batch_size={self.batch_size}: must be a positive number of examples.",
        )
        if self.preconditioner is not None and not isinstance(self.preconditioner, RMSProp):
            raise ConfigError(
                f"preconditioner={self.preconditioner!r}: must be None or an RMSProp, such as"
                " RMSProp(alpha=0.99, eps=0.1)."
            )
        check_choice("chain_mode", self.chain_mode, get_args(ChainMode))


def _unknown(value: Any) -> bool:
    """True if a number has no value yet.

    While JAX compiles a program that takes settings as an argument, it rebuilds them with tracers,
    or with bare objects, in place of their numbers. These cannot be checked.
    """
    return isinstance(value, Tracer) or type(value) is object


def check_number(name: str, value: Any) -> None:
    """Raises ConfigError if a setting is not a number."""
    fits = isinstance(value, numbers.Real | jax.Array) or _unknown(value)
    require(fits, f"{name}={value!r}: must be a number.")


def check_positive(name: str, value: Any) -> None:
    """Raises ConfigError if a setting is not a positive finite number."""
    check_number(name, value)
    if _unknown(value) or 0 < value < math.inf:
        return
    hint = ""
    if math.isnan(value):
        hint = (
            " NaN is what a sweep without a plateau returns: take more draws, or other step sizes."
        )
    raise ConfigError(f"{name}={value}: must be a positive number.{hint}")


def default_n_beta(n: Real) -> float:
    """Temperature n / ln n of the widely applicable Bayesian information criterion.

    Args:
        n: number of examples, more than 1.
    """
    check_number("n", n)
    require(n > 1, f"n={n}: must be more than one example, for n / ln n.")
    return n / math.log(n)


def settings_of_call(
    function: str,
    settings: SGLDSettings | None,
    options: Mapping[str, Any],
    *,
    required: tuple[str, ...],
    **defaults: Any,
) -> SGLDSettings:
    """Settings of a public function, given as ``settings=`` or one by one, as in mi_jax 0.1.

    Args:
        function: name of the function, for messages.
        settings: value of ``settings=``; None if it was not given.
        options: the other keywords of the call. They are deprecated.
        required: options that mi_jax 0.1 had no default for.
        defaults: values for this function that differ from those of ``SGLDSettings``.

    Raises:
        ConfigError: if neither or both forms are given, a required option is missing, or an option
            is unknown.
    """
    options = dict(options)
    # mi_jax 0.1 called the batch size of the function ``batch``.
    if "batch" in options:
        options["batch_size"] = options.pop("batch")
    allowed = [field.name for field in fields(SGLDSettings)]
    for name in options:
        if name not in allowed:
            raise ConfigError(f"{function} has no option '{name}'; {nearest(name, allowed)}")
    if settings is not None:
        if options:
            raise ConfigError(
                f"{function} was given settings= and also {', '.join(options)}. Put all of them"
                " into settings=SGLDSettings(...)."
            )
        return settings
    missing = [name for name in required if name not in options]
    if missing:
        raise ConfigError(
            f"{function} needs {', '.join(missing)}. Pass settings=SGLDSettings(...)."
        )
    warn_old_name(
        f"{function}({', '.join(f'{name}=...' for name in options)})",
        f"{function}(settings=SGLDSettings(...))",
        stacklevel=4,
    )
    return replace(SGLDSettings(), **{**defaults, **options})
