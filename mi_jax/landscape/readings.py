"""Measures of the landscape around a checkpoint: learning coefficient and sharpness."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import ConfigError, nearest, require
from mi_jax.contracts import Batch, Context, Measure, Reference, batch_loss, option_suffix
from mi_jax.landscape.coefficient import Flags, LearningCoefficient, estimate
from mi_jax.landscape.curvature import top_eigenvalues
from mi_jax.landscape.exact import Real
from mi_jax.landscape.restriction import restricted
from mi_jax.landscape.settings import RMSProp, SGLDSettings, default_n_beta
from mi_jax.landscape.subset import Where, split_rows
from mi_jax.measures.evaluation import batch

_VARIABLES: Mapping[str, tuple[tuple[str, ...], Callable[[LearningCoefficient], Array]]] = {
    "": ((), lambda estimate: estimate.learning_coefficient),
    "_se": ((), lambda estimate: estimate.standard_error),
    "_by_chain": (("chain",), lambda estimate: estimate.by_chain),
    "_loss_trace": (
        ("chain", "draw"),
        lambda estimate: jnp.concatenate([estimate.burn_in_trace, estimate.loss_trace], axis=1),
    ),
    "_baseline_loss": ((), lambda estimate: estimate.baseline_loss),
    "_r_hat": ((), lambda estimate: estimate.r_hat),
    "_effective_draws": ((), lambda estimate: estimate.effective_draws),
    "_acceptance": ((), lambda estimate: estimate.acceptance.mean()),
    "_distance": ((), lambda estimate: estimate.distance_trace.mean()),
    "_discretisation_bias": ((), lambda estimate: estimate.discretisation_bias),
    "_localisation": ((), lambda estimate: estimate.localisation),
    "_share_below_start": ((), lambda estimate: estimate.share_below_start),
    **{f"_{flag}": ((), attrgetter(f"flags.{flag}")) for flag in Flags._fields},
}
"""Dims of each variable, and how to read it from an estimate, by the suffix of its name."""

_CHAIN_OPTIONS = {
    "n_beta": "n_beta",
    "gamma": "gamma",
    "epsilon": "epsilon",
    "burn_in": "burn_in",
    "draws": "draws",
    "chains": "chains",
    "minibatch": "batch_size",
    "preconditioner": "preconditioner",
    "chain_mode": "chain_mode",
}
"""Field of ``SGLDSettings`` by the option of the measure that sets it."""


def split_loss_of(context: Context) -> Callable[[Params, Batch], Scalar]:
    """Mean loss that the run was trained with, as a function (params, examples) -> nats."""

    def loss(params: Params, examples: Batch) -> Scalar:
        outputs = context.model.apply(params, examples.inputs, positions=context.read)
        return batch_loss(context.loss, outputs, examples)

    return loss


def measure_learning_coefficient(
    *,
    settings: SGLDSettings | None = None,
    split: str = "train",
    parameters: str | Sequence[str] = (),
    entry: int | None = None,
    examples: Sequence[int] | None = None,
    where: Where | None = None,
    name: str | None = None,
    **options: Any,
) -> Measure:
    """The local learning coefficient at every checkpoint, by localised SGLD (Lau et al., arXiv
    2308.12108).

    The estimate is n_beta (E[L] - L(w*)). If the loss is quadratic it is half the number of
    directions that the loss fixes. Beside it the measure reads its standard error, the values by
    chain, the loss at every step (negative draws are burn-in), and diagnostics of a bad estimate:
    R-hat, effective draws, MALA acceptance, distance, the part due to finite steps, the
    localisation, and flags.

    Every checkpoint and seed gets the same noise, so that curves over training are smoother than
    the standard error of each point suggests.

    Args:
        settings: settings of the chains; None: ``SGLDSettings()``. n_beta=None stands for n / ln n,
            where n is the number of examples in L.
        split: split whose examples L is averaged over. "train" is the published choice; another
            split estimates the coefficient for other data (arXiv 2410.02984), for which w* is in
            general not a minimum.
        parameters: patterns of dotted names; only matching parameters are sampled (the refined
            coefficient, arXiv 2410.02984). Empty: all.
        entry: index on the leading axis of these parameters, to sample it alone:
            ``parameters="blocks.0.attn.W_*", entry=2`` is a head.
        examples: indices in the split of the examples that L is averaged over; None: all. n is
            then their number.
        where: a concept of the task's labels and a class, or classes, as in ``("b_parity", 1)``:
            L is averaged over the examples of that class. n is then their number.
        name: name of the variable; None: ``learning_coefficient`` with a suffix of the options
            that differ from the defaults.
        options: fields of ``SGLDSettings`` one by one, for calls by name such as
            ``learning_coefficient(gamma=10.0)``. They replace those of ``settings``. The batch
            size is called ``minibatch``, and preconditioner="rmsprop" stands for ``RMSProp()``.

    Returns:
        The measure.

    Raises:
        ConfigError: if an option is unknown or invalid.
    """
    settings = _with_options(settings or SGLDSettings(), options)
    patterns = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    # The order of the options is the order of the suffix of the name, which stored readings have.
    stored = {
        "split": split,
        "n_beta": settings.n_beta,
        "gamma": settings.gamma,
        "epsilon": settings.epsilon,
        "burn_in": settings.burn_in,
        "draws": settings.draws,
        "chains": settings.chains,
        "minibatch": settings.batch_size,
        "parameters": list(patterns),
        "entry": entry,
        "examples": None if examples is None else list(examples),
        "where": where,
        "preconditioner": repr(settings.preconditioner) if settings.preconditioner else None,
    }
    variable = name or f"learning_coefficient{_suffix(stored)}"

    def chosen(reference: Reference, context: Context) -> Int[Array, " example"]:
        return jnp.asarray(split_rows(context, split, examples, where))

    def count(reference: Reference, context: Context) -> int:
        return len(split_rows(context, split, examples, where))

    def temperature(reference: Reference, context: Context) -> Real:
        if settings.n_beta is None:
            return default_n_beta(count(reference, context))
        return settings.n_beta  # pyright: ignore[reportReturnType]  a number, as nothing is traced

    def inverse(reference: Reference, context: Context) -> Real:
        return temperature(reference, context) / count(reference, context)

    def learning_coefficient(params: Params, context: Context) -> dict[str, Array]:
        data = batch(context, split)._replace(info={})
        rows = context.prepared.get(f"{variable}_examples")
        if rows is not None:
            data = jax.tree.map(lambda x: x[rows], data)
        estimated = estimate(
            split_loss_of(context),
            params,
            data,
            restricted(params, patterns, entry),
            jax.random.key(0),
            replace(settings, n_beta=context.prepared[f"{variable}_n_beta"]),
        )
        return {f"{variable}{suffix}": read(estimated) for suffix, (_, read) in _VARIABLES.items()}

    subset = {f"{variable}_examples": chosen} if examples is not None or where is not None else {}
    return Measure(
        variable,
        learning_coefficient,
        {f"{variable}{suffix}": dims for suffix, (dims, _) in _VARIABLES.items()},
        splits=(split,),
        prepare={
            **subset,
            f"{variable}_n": count,
            f"{variable}_n_beta": temperature,
            f"{variable}_beta": inverse,
        },
        options=stored,
        coordinates={"draw": tuple(range(-settings.burn_in, settings.draws))},
        source="arXiv 2308.12108",
    )


def _signature() -> inspect.Signature:
    """Signature of ``measure_learning_coefficient`` with each option of the chains by name.

    Calls by name as text are checked against it, and ``mi-jax list options`` prints it.
    """
    own = inspect.signature(measure_learning_coefficient).parameters
    defaults = SGLDSettings()
    chains = [
        inspect.Parameter(
            option,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, field),
            annotation=inspect.signature(SGLDSettings).parameters[field].annotation,
        )
        for option, field in _CHAIN_OPTIONS.items()
    ]
    whole = [own[name] for name in ("parameters", "entry", "examples", "where", "name")]
    return inspect.Signature([own["split"], *chains, *whole], return_annotation=Measure)


# A plain assignment: functools.wraps and jaxtyping keep it, and the call itself is not changed.
setattr(measure_learning_coefficient, "__signature__", _signature())  # noqa: B010


def _with_options(settings: SGLDSettings, options: Mapping[str, Any]) -> SGLDSettings:
    """The settings with the options of a measure in place of their own fields."""
    changes = dict[str, Any]()
    for option, value in options.items():
        if option not in _CHAIN_OPTIONS:
            raise ConfigError(
                f"learning_coefficient has no setting '{option}'; {nearest(option, _CHAIN_OPTIONS)}"
            )
        changes[_CHAIN_OPTIONS[option]] = value
    if changes.get("preconditioner") == "rmsprop":
        changes["preconditioner"] = RMSProp()
    minibatch = options.get("minibatch")
    require(
        minibatch is None or minibatch > 0,
        f"minibatch={minibatch}: must be a positive number of examples.",
    )
    return replace(settings, **changes)


def _suffix(options: Mapping[str, Any]) -> str:
    """Suffix of the name: the options that differ from the defaults."""
    signature = inspect.signature(measure_learning_coefficient)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    return option_suffix(options, defaults, bare=("split", "parameters"))


def measure_sharpness(*, split: str = "train", order: int = 20) -> Measure:
    """The largest eigenvalue of the Hessian of the mean loss over a split, by Lanczos with full
    reorthogonalisation.

    Gradient descent of learning rate eta diverges on a quadratic whose sharpness is above 2 / eta
    (arXiv 2103.00065).

    Args:
        split: split whose examples the loss is averaged over.
        order: number of Hessian products, at least 2. The value approaches the largest eigenvalue
            from below as the order grows.

    Returns:
        The measure.

    Raises:
        ConfigError: if the order is below 2.
    """
    require(order >= 2, f"order={order}: must be at least 2 Hessian products.")

    def sharpness(params: Params, context: Context) -> Float[Array, ""]:
        loss, examples = split_loss_of(context), batch(context, split)
        return top_eigenvalues(
            lambda w: loss(w, examples), params, order=order, key=jax.random.key(0)
        )[0]

    options = {"split": split, "order": order}
    return Measure(
        f"sharpness{option_suffix(options, {'split': 'train', 'order': 20}, bare=('split',))}",
        sharpness,
        splits=(split,),
        options=options,
        source="arXiv 2103.00065",
    )
