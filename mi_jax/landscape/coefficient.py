"""Local learning coefficient of any loss of any pytree, with diagnostics of the estimate."""

import functools
import math
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mi_jax.basics.dims import Number, Params, PRNGKey, Scalar
from mi_jax.basics.errors import ConfigError, require
from mi_jax.basics.pytrees import dotted
from mi_jax.landscape.diagnostics import diagnose
from mi_jax.landscape.exact import Real
from mi_jax.landscape.restriction import Restriction, flat_mask
from mi_jax.landscape.sampling import BatchLoss, sgld
from mi_jax.landscape.settings import (
    SGLDSettings,
    check_positive,
    default_n_beta,
    settings_of_call,
)
from mi_jax.landscape.subset import Examples, take_examples

TOO_LARGE = 0.1
"""Share of the estimate due to finite steps above which epsilon counts as too large."""

UNMIXED = 1.1
"""R-hat above which the chains count as disagreeing."""


class Protocol(NamedTuple):
    """Settings that an estimate was made with.

    Attributes:
        n: number of examples that the loss is a mean over.
        n_beta: n times the inverse temperature.
        beta: inverse temperature.
        gamma: strength of the localisation.
        epsilon: step size.
        burn_in: steps per chain discarded before the first draw.
        draws: draws per chain.
        chains: number of chains.
    """

    n: float
    n_beta: Number | int
    beta: Number
    gamma: Number | int
    epsilon: Number | int
    burn_in: int
    draws: int
    chains: int


class Flags(NamedTuple):
    """Warnings about an estimate; each is True if something is wrong.

    A learning coefficient is positive. An estimate at a point that is not a minimum can be
    negative.

    Attributes:
        diverged: a loss or distance is not finite, or the chain is about to diverge: finite steps
            make all of the estimate. On a quadratic of curvature h this holds if epsilon
            (n_beta h + gamma) >= 4, the edge of stability of the chain.
        epsilon_too_large: diverged, or finite steps make more than ``TOO_LARGE`` of the estimate.
        negative: the estimate is below 0.
        below_start: more than a tenth of the draws have a loss below that of w*, so that w* is not
            a minimum at this temperature.
        unmixed: R-hat is above ``UNMIXED``, so that the standard error is too small; or there is
            no R-hat, because there are fewer than 8 draws per chain.
    """

    diverged: Bool[Array, ""]
    epsilon_too_large: Bool[Array, ""]
    negative: Bool[Array, ""]
    below_start: Bool[Array, ""]
    unmixed: Bool[Array, ""]


class LearningCoefficient(NamedTuple):
    """Estimate of a learning coefficient, its error, and the evidence for it.

    Attributes:
        learning_coefficient: n_beta (mean loss over draws - baseline_loss).
        standard_error: n_beta times the standard error of the mean loss over all chains
            (``diagnose``).
        by_chain: the estimate of each chain.
        baseline_loss: L(w*) over all data, in nats.
        loss_trace: losses of the draws, in nats; draw t is the loss before step burn_in + t + 1.
        burn_in_trace: losses before steps 1 to burn_in, in nats.
        distance_trace: |w - w*| of the draws.
        acceptance: mean probability that a Metropolis step (MALA) would have accepted; NaN with a
            preconditioner.
        discretisation_bias: part of the estimate that is due to finite steps. Its mean is exact on
            a quadratic, approximate elsewhere.
        localisation: 1 - n_beta^2 var(L) / estimate. 0 if the loss alone holds the chains:
            n_beta (L - L(w*)) is then Gamma distributed, and its variance equals its mean at any
            singularity. Near 1 if gamma holds the chains, or if too few steps were taken to
            leave w*; on a quadratic it is the share by which the estimate falls as ln gamma rises
            by 1. On a loss that grows faster than a quadratic, gamma can matter more than this
            value says: a low value is no proof. NaN for minibatches, which add variance, and for
            an estimate below 0.
        r_hat: split R-hat of the losses.
        effective_draws: effective number of independent draws over all chains.
        share_below_start: share of the draws whose loss is below ``baseline_loss``.
        flags: warnings.
        protocol: settings of the estimate.
    """

    learning_coefficient: Scalar
    standard_error: Scalar
    by_chain: Float[Array, " chain"]
    baseline_loss: Scalar
    loss_trace: Float[Array, "chain draw"]
    burn_in_trace: Float[Array, "chain early"]
    distance_trace: Float[Array, "chain draw"]
    acceptance: Float[Array, " chain"]
    discretisation_bias: Scalar
    localisation: Scalar
    r_hat: Scalar
    effective_draws: Scalar
    share_below_start: Scalar
    flags: Flags
    protocol: Protocol


def learning_coefficient(
    loss: Any,
    params: Params,
    *,
    n: Real,
    settings: SGLDSettings | None = None,
    key: PRNGKey,
    mask: Restriction = None,
    data: PyTree = None,
    examples: Examples | None = None,
    **options: Any,
) -> LearningCoefficient:
    """Local learning coefficient n_beta (E[L(w)] - L(w*)) at w* = ``params``, by localised SGLD.

    Compiled programs are cached by ``loss`` (the function object) and the compiled fields of the
    settings; other numbers, weights or data of the same shapes compile nothing.

    Args:
        loss: ``params -> mean loss per example`` in nats over the full data; with ``data``,
            ``(params, data) -> mean loss``.
        params: the checkpoint w*, a pytree of floating point arrays.
        n: number of examples that the loss is a mean over.
        settings: settings of the chains. n_beta=None stands for n / ln n.
        key: random key.
        mask: parameters that are sampled: patterns of dotted names, or a pytree of booleans (see
            ``restrict``). The others keep their bits. None samples all.
        data: pytree of arrays whose leading axis is the example; None if the loss takes only
            parameters.
        examples: the examples of ``data`` that the loss is averaged over, as indices or a boolean
            mask; None: all. n is then their number.
        options: deprecated: fields of ``SGLDSettings`` one by one, with ``batch`` for
            ``batch_size``.

    Returns:
        The estimate with its error, traces and flags.

    Raises:
        ConfigError: if a setting is missing or invalid, the loss is not one number, or the mask
            leaves nothing to sample.

    Reference:
        Lau et al., arXiv 2308.12108

    Example:
        >>> bowl = lambda w: 0.5 * (w["a"] ** 2).sum()
        >>> settings = SGLDSettings(
        ...     n_beta=100.0, gamma=0.0, epsilon=1e-3, burn_in=200, draws=400, chains=8)
        >>> estimate = learning_coefficient(
        ...     bowl, {"a": jnp.zeros(4)}, n=1000, settings=settings, key=jax.random.key(0))
        >>> abs(float(estimate.learning_coefficient) - 2.05) < 4 * float(estimate.standard_error)
        True
    """
    settings = settings_of_call(
        "learning_coefficient",
        settings,
        options,
        required=("gamma", "epsilon", "burn_in", "draws", "chains"),
    )
    default_temperature = settings.n_beta is None
    n_beta = default_n_beta(n) if settings.n_beta is None else settings.n_beta
    check_positive("n", n)
    settings = replace(settings, n_beta=n_beta)
    if not isinstance(key, jax.Array | np.ndarray):
        raise ConfigError(f"key={key!r}: must be a random key, such as jax.random.key(0).")
    require(
        data is not None or settings.batch_size is None,
        "batch_size is given without data. There is nothing to draw batches from. Pass data=.",
    )
    require(
        data is not None or examples is None,
        "examples is given without data. There is nothing to choose from. Pass data=.",
    )
    w = jax.tree.map(jnp.asarray, params)
    check_floating(w)
    if examples is not None:
        data = take_examples(data, examples)
        count = jax.tree.leaves(data)[0].shape[0]
        require(
            n == count or not default_temperature,
            f"n={n}, but examples chooses {count}: the default n_beta, n / ln n, would be that of"
            f" another number of examples than the loss. Pass n={count}, or n_beta=.",
        )
    if data is None:
        loss = _of_params(loss)
    check_scalar(loss, w, data)
    estimated = _program(loss, w, data, flat_mask(w, mask), key, settings)
    protocol = Protocol(
        n,
        n_beta,
        n_beta / n,
        settings.gamma,
        settings.epsilon,
        settings.burn_in,
        settings.draws,
        settings.chains,
    )
    return estimated._replace(protocol=protocol)


def check_floating(params: Params) -> None:
    """Raises ConfigError if there are no parameters, or some that are not floating point."""
    arrays = dotted(params)
    require(
        len(arrays) > 0,
        "The parameters hold no array, so there is nothing to sample. Give a model's parameters.",
    )
    for name, x in arrays.items():
        require(
            jnp.issubdtype(x.dtype, jnp.floating),
            f"The parameter '{name}' must be of floating point numbers; it is of {x.dtype}.",
        )


def check_scalar(loss: BatchLoss, params: Params, data: PyTree) -> None:
    """Raises ConfigError if the loss is not one number."""
    value = jax.eval_shape(loss, params, data)
    shape = value.shape if isinstance(value, jax.ShapeDtypeStruct) else jax.tree.structure(value)
    require(
        shape == (),
        f"The loss must return one number; it returns {shape}. Return the mean over examples.",
    )


@functools.lru_cache(maxsize=256)
def _of_params(loss: Any) -> BatchLoss:
    """The loss with a batch argument that it ignores.

    Cached, because compiled programs are cached by the function object of the loss.
    """
    return lambda params, batch: loss(params)


def estimate(
    loss: BatchLoss,
    params: Params,
    data: PyTree,
    mask: Bool[Array | np.ndarray, " parameter"] | None,
    key: PRNGKey,
    settings: SGLDSettings,
) -> LearningCoefficient:
    """``learning_coefficient`` for use inside a compiled program: arguments are not checked.

    Args:
        loss: ``(params, data) -> mean loss per example`` in nats.
        params: the checkpoint w*.
        data: pytree of arrays whose leading axis is the example, or whatever ``loss`` takes.
        mask: which entries of the flat parameters are sampled; None: all.
        key: random key.
        settings: settings of the chains; n_beta must be set, and the numbers may be traced.

    Returns:
        The estimate. The numbers in its ``protocol`` are NaN, because they may be traced.
    """
    sampler = sgld(loss, params, settings, mask=mask)
    batch_size, burn_in, n_beta = settings.batch_size, settings.burn_in, settings.n_beta

    def chain(key: PRNGKey) -> tuple[Any, Any]:
        def _step(state: Any, key: PRNGKey) -> tuple[Any, Any]:
            noise, choice = jax.random.split(key)
            batch = data if batch_size is None else _drawn(choice, data, batch_size)
            return sampler.step(noise, state, batch)

        begin, steps = jax.random.split(key)
        state, infos = jax.lax.scan(
            _step, sampler.init(begin, params), jax.random.split(steps, burn_in + settings.draws)
        )
        return sampler.result(state), infos

    keys = jax.random.split(key, settings.chains)
    if settings.chain_mode == "vmapped":
        means, infos = jax.vmap(chain)(keys)
    else:
        means, infos = jax.lax.map(chain, keys)
    baseline = loss(params, data)
    assert n_beta is not None  # ``sgld`` has refused None
    return _judged(means, infos, baseline, n_beta, burn_in, whole=batch_size is None)


_program = jax.jit(estimate, static_argnames=("loss",))


def _drawn(key: PRNGKey, data: PyTree, batch_size: int) -> PyTree:
    """``batch_size`` examples of the data, with replacement."""
    leaves = jax.tree.leaves(data)
    chosen = jax.random.randint(key, (batch_size,), 0, leaves[0].shape[0])
    return jax.tree.map(lambda x: x[chosen], data)


def _judged(
    means: Any, infos: Any, baseline: Scalar, n_beta: Number | int, burn_in: int, *, whole: bool
) -> LearningCoefficient:
    """The estimate with its error and flags, from what the chains saw.

    Args:
        means: ``ChainMeans`` [chain].
        infos: ``Info`` [chain step].
        baseline: L(w*).
        n_beta: temperature.
        burn_in: steps that are not draws.
        whole: whether every step saw all examples.
    """
    trace = infos.loss[:, burn_in:]
    by_chain = n_beta * (means.loss - baseline)
    coefficient, bias = by_chain.mean(), means.discretisation_bias.mean()
    # Relative to the baseline: for a constant loss, rounding would look like variance otherwise.
    diagnostics = diagnose(trace - baseline)
    finite = jnp.isfinite(infos.loss).all() & jnp.isfinite(infos.distance).all()
    diverged = ~finite | ((coefficient > 0) & (bias >= coefficient))
    below = (trace < baseline).mean(dtype=trace.dtype)
    varied = jnp.square(n_beta) * (trace - baseline).var()
    # Negated comparisons, so that NaN raises a flag.
    flags = Flags(
        diverged=diverged,
        epsilon_too_large=diverged | ~(bias <= TOO_LARGE * jnp.abs(coefficient)),
        negative=coefficient < 0,
        below_start=below > 0.1,
        unmixed=~(diagnostics.r_hat <= UNMIXED),
    )
    nan = math.nan
    return LearningCoefficient(
        learning_coefficient=coefficient,
        standard_error=n_beta * diagnostics.standard_error,
        by_chain=by_chain,
        baseline_loss=baseline,
        loss_trace=trace,
        burn_in_trace=infos.loss[:, :burn_in],
        distance_trace=infos.distance[:, burn_in:],
        acceptance=means.acceptance,
        discretisation_bias=bias,
        localisation=jnp.where((coefficient > 0) & whole, 1 - varied / coefficient, nan),
        r_hat=diagnostics.r_hat,
        effective_draws=diagnostics.effective_draws,
        share_below_start=below,
        flags=flags,
        protocol=Protocol(nan, nan, nan, nan, nan, burn_in, trace.shape[1], trace.shape[0]),
    )
