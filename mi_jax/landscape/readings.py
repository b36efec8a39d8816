"""The landscape around a checkpoint as readings of a run: learning coefficient, sharpness."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_jax.basics.dims import Params, Scalar
from mi_jax.basics.errors import require
from mi_jax.contracts import Batch, Context, Measure, Reference, batch_loss
from mi_jax.landscape.coefficient import (
    ChainMode,
    Flags,
    LearningCoefficient,
    check_chain_mode,
    check_preconditioner,
    check_protocol,
    default_n_beta,
    estimate,
)
from mi_jax.landscape.curvature import top_eigenvalues
from mi_jax.landscape.exact import Real
from mi_jax.landscape.restriction import restricted
from mi_jax.landscape.sampling import RMSProp
from mi_jax.landscape.subset import Where, split_rows
from mi_jax.measures.evaluation import batch

_VARIABLES: Mapping[str, tuple[tuple[str, ...], Callable[[LearningCoefficient], Array]]] = {
    "": ((), lambda found: found.learning_coefficient),
    "_se": ((), lambda found: found.standard_error),
    "_by_chain": (("chain",), lambda found: found.by_chain),
    "_loss_trace": (
        ("chain", "draw"),
        lambda found: jnp.concatenate([found.burn_in_trace, found.loss_trace], axis=1),
    ),
    "_baseline_loss": ((), lambda found: found.baseline_loss),
    "_r_hat": ((), lambda found: found.r_hat),
    "_effective_draws": ((), lambda found: found.effective_draws),
    "_acceptance": ((), lambda found: found.acceptance.mean()),
    "_distance": ((), lambda found: found.distance_trace.mean()),
    "_discretisation_bias": ((), lambda found: found.discretisation_bias),
    "_localisation": ((), lambda found: found.localisation),
    "_share_below_start": ((), lambda found: found.share_below_start),
    **{f"_{flag}": ((), attrgetter(f"flags.{flag}")) for flag in Flags._fields},
}
"""By what is added to the estimate's name: its dims, and what of the estimate it is."""


def split_loss_of(context: Context) -> Callable[[Params, Batch], Scalar]:
    """(params, examples) -> the mean loss, the one that the run was trained with."""

    def loss(params: Params, examples: Batch) -> Scalar:
        outputs = context.model.apply(params, examples.inputs, positions=context.read)
        return batch_loss(context.loss, outputs, examples)

    return loss


def measure_learning_coefficient(
    *,
    split: str = "train",
    n_beta: Real | None = None,
    gamma: Real = 1000.0,
    epsilon: Real = 5e-5,
    burn_in: int = 50,
    draws: int = 150,
    chains: int = 4,
    minibatch: int | None = None,
    parameters: str | Sequence[str] = (),
    entry: int | None = None,
    examples: Sequence[int] | None = None,
    where: Where | None = None,
    preconditioner: RMSProp | Literal["rmsprop"] | None = None,
    chain_mode: ChainMode = "vmapped",
    name: str | None = None,
) -> Measure:
    """The local learning coefficient at every checkpoint, by localised SGLD (Lau et al., arXiv
    2308.12108).

    n_beta (E[L] - L(w*)): half the number of directions that the loss fixes, where it is quadratic.
    With it: its standard error, the values by chain, the losses of every draw (draws below 0 are
    burn-in), and what tells a bad estimate: R-hat, effective draws, MALA acceptance, distance, the
    share due to finite steps, whether it is gamma's more than the loss's, flags.

    Every checkpoint and seed gets the same noise, so that curves over training are smoother than
    the error of each point says.

    Args:
        split: the examples of L: "train" as published; another one asks about other data (drLLC,
            arXiv 2410.02984), of which w* is in general no minimum.
        n_beta: None: n / ln n, with n the split's examples.
        parameters: patterns of dotted names; only these are sampled (refined, arXiv 2410.02984).
            None given: all.
        entry: of these arrays, the entry of the leading axis alone:
            ``parameters="blocks.0.attn.W_*", entry=2`` is a head.
        examples: places in the split; where: a concept of the task's labels and a class, or
            classes, of it, as in ``("b_parity", 1)``. The loss is of these examples alone, and n is
            how many they are.
        minibatch: examples of a step, drawn anew for every chain; None: all.
        preconditioner: RMSProp(...), or "rmsprop" for its published settings; None: plain SGLD.
        chain_mode: see ``landscape.learning_coefficient``.
        name: of the variable; None: what differs from these defaults is a suffix.
    """
    check_protocol(2, 1.0 if n_beta is None else n_beta, gamma, epsilon, burn_in, draws, chains)
    preconditioner = RMSProp() if preconditioner == "rmsprop" else preconditioner
    check_preconditioner(preconditioner)
    check_chain_mode(chain_mode)
    require(
        minibatch is None or minibatch > 0,
        f"minibatch={minibatch}; a positive number of examples is needed",
    )
    patterns = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    settings = {
        "gamma": gamma,
        "epsilon": epsilon,
        "burn_in": burn_in,
        "draws": draws,
        "chains": chains,
    }
    options = {
        "split": split,
        "n_beta": n_beta,
        **settings,
        "minibatch": minibatch,
        "parameters": list(patterns),
    }
    options |= {
        "entry": entry,
        "examples": None if examples is None else list(examples),
        "where": where,
    }
    options |= {"preconditioner": repr(preconditioner) if preconditioner else None}
    named = name or f"learning_coefficient{_suffix(options)}"

    def chosen(reference: Reference, context: Context) -> Int[Array, " example"]:
        return jnp.asarray(split_rows(context, split, examples, where))

    def count(reference: Reference, context: Context) -> int:
        return len(split_rows(context, split, examples, where))

    def temperature(reference: Reference, context: Context) -> Real:
        return default_n_beta(count(reference, context)) if n_beta is None else n_beta

    def inverse(reference: Reference, context: Context) -> Real:
        return temperature(reference, context) / count(reference, context)

    def function(params: Params, context: Context) -> dict[str, Array]:
        whole = batch(context, split)._replace(info={})
        rows = context.prepared.get(f"{named}_examples")
        found = estimate(
            split_loss_of(context),
            params,
            whole if rows is None else jax.tree.map(lambda x: x[rows], whole),
            restricted(params, patterns, entry),
            jax.random.key(0),
            context.prepared[f"{named}_n_beta"],
            gamma,
            epsilon,
            burn_in=burn_in,
            draws=draws,
            chains=chains,
            batch=minibatch,
            preconditioner=preconditioner,
            chain_mode=chain_mode,
        )
        return {f"{named}{suffix}": read(found) for suffix, (_, read) in _VARIABLES.items()}

    subset = {f"{named}_examples": chosen} if examples is not None or where is not None else {}
    return Measure(
        named,
        function,
        {f"{named}{suffix}": dims for suffix, (dims, _) in _VARIABLES.items()},
        splits=(split,),
        prepare={
            **subset,
            f"{named}_n": count,
            f"{named}_n_beta": temperature,
            f"{named}_beta": inverse,
        },
        options=options,
        coordinates={"draw": tuple(range(-burn_in, draws))},
        source="arXiv 2308.12108",
    )


def _suffix(options: Mapping[str, Any]) -> str:
    """What is added to the name: the options that differ from the defaults."""
    defaults = inspect.signature(measure_learning_coefficient).parameters
    parts: list[str] = []
    for name, value in options.items():
        if (tuple(value) if isinstance(value, list) else value) == defaults[name].default:
            continue
        told = (
            "+".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
        )
        told = told if len(told) <= 40 else hashlib.sha256(told.encode()).hexdigest()[:8]
        parts.append(told if name in ("split", "parameters") else f"{name}_{told}")
    return "".join(f"_{part}" for part in parts)


def measure_sharpness(*, split: str = "train", order: int = 20) -> Measure:
    """The largest eigenvalue of the Hessian of the loss over a split, by Lanczos with full
    reorthogonalisation.

    Gradient descent of learning rate eta diverges on a quadratic of more than 2 / eta (arXiv
    2103.00065).

    Args:
        order: Hessian products; the value nears the largest eigenvalue from below.
    """
    require(order >= 2, f"order={order}; at least 2 Hessian products are needed")

    def function(params: Params, context: Context) -> Float[Array, ""]:
        loss, examples = split_loss_of(context), batch(context, split)
        return top_eigenvalues(
            lambda w: loss(w, examples), params, order=order, key=jax.random.key(0)
        )[0]

    name = "sharpness" + f"_{split}" * (split != "train") + f"_order_{order}" * (order != 20)
    return Measure(
        name,
        function,
        splits=(split,),
        options={"split": split, "order": order},
        source="arXiv 2103.00065",
    )
