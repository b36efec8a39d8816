"""The local learning coefficient of any loss of any pytree, with what is needed to judge the
estimate.
"""

import functools
import math
import numbers
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mi_jax.basics.dims import Number, Params, PRNGKey, Scalar
from mi_jax.basics.errors import nearest, require, whole
from mi_jax.basics.pytrees import dotted
from mi_jax.landscape.diagnostics import diagnose
from mi_jax.landscape.exact import Real
from mi_jax.landscape.restriction import Restriction, flat_mask
from mi_jax.landscape.sampling import BatchLoss, RMSProp, sgld
from mi_jax.landscape.subset import Examples, taken

ChainMode = Literal["vmapped", "mapped"]

TOO_LARGE = 0.1
"""The share of the estimate that may be due to finite steps before epsilon counts as too large."""

UNMIXED = 1.1
"""The R-hat from which chains count as disagreeing."""


class Protocol(NamedTuple):
    """How an estimate was made."""

    n: float
    n_beta: float
    beta: float
    gamma: float
    epsilon: float
    burn_in: int
    draws: int
    chains: int


class Flags(NamedTuple):
    """What is wrong with an estimate. A learning coefficient is positive; one of a point that is no
    minimum needn't be.
    """

    diverged: Bool[Array, ""]
    """A chain met a loss that is not finite, or is on its way there: finite steps make all of the
    estimate, which on a quadratic is so where epsilon (n_beta h + gamma) >= 4, the edge of
    stability of the chain.
    """
    epsilon_too_large: Bool[Array, ""]
    """Diverged, or finite steps make more than TOO_LARGE of the estimate."""
    negative: Bool[Array, ""]
    """The estimate is below 0."""
    below_start: Bool[Array, ""]
    """More than a tenth of the draws has a loss below that of w*, which so is no minimum at this
    temperature.
    """
    unmixed: Bool[Array, ""]
    """R-hat is above UNMIXED, so that the standard error is too small; or there is none, as of
    fewer than 8 draws.
    """


class LearningCoefficient(NamedTuple):
    """An estimate, its error, and its evidence."""

    learning_coefficient: Scalar
    """n_beta (mean loss over draws - baseline_loss)."""
    standard_error: Scalar
    """n_beta times the standard error of the mean loss over all chains (see ``diagnose``)."""
    by_chain: Float[Array, " chain"]
    baseline_loss: Scalar
    """L(w*), over all data."""
    loss_trace: Float[Array, "chain draw"]
    """Draw t is the loss before step burn_in + t + 1."""
    burn_in_trace: Float[Array, "chain early"]
    """The losses before steps 1 to burn_in."""
    distance_trace: Float[Array, "chain draw"]
    """|w - w*|."""
    acceptance: Float[Array, " chain"]
    """Mean chance that a Metropolis step (MALA) would have accepted; NaN with a preconditioner."""
    discretisation_bias: Scalar
    """How much of the estimate is due to finite steps: exact in the mean on a quadratic, about so
    elsewhere.
    """
    localisation: Scalar
    """1 - n_beta^2 var(L) / estimate.

    0 where the loss alone holds the chains: n_beta (L - L(w*)) is then Gamma distributed, its
        variance its mean, at any
    singularity. Towards 1 where gamma holds them, or there were too few steps to leave w*: on a
        quadratic it is the share by
    which the estimate falls as ln gamma rises by 1. On a loss that grows faster gamma can matter
    more than it says, so that a low value is no proof. NaN for minibatches, which add variance, and
    for an estimate below 0.
    """
    r_hat: Scalar
    effective_draws: Scalar
    share_below_start: Scalar
    """The share of draws whose loss is below the baseline."""
    flags: Flags
    protocol: Protocol


def learning_coefficient(
    loss: Any,
    params: Params,
    *,
    n: Real,
    n_beta: Real | None = None,
    gamma: Real,
    epsilon: Real,
    burn_in: int,
    draws: int,
    chains: int,
    key: PRNGKey,
    mask: Restriction = None,
    data: PyTree = None,
    examples: Examples | None = None,
    batch: int | None = None,
    preconditioner: RMSProp | None = None,
    chain_mode: ChainMode = "vmapped",
) -> LearningCoefficient:
    """The local learning coefficient n_beta (E[L(w)] - L(w*)) at w* = ``params`` (Lau et al., arXiv
    2308.12108).

    A program is kept by ``loss`` (the function itself), burn_in, draws, chains: other numbers,
    weights or data compile nothing.

    Args:
        loss: ``params -> mean loss per example`` in nats over the full data; with ``data``,
            ``(params, data) -> mean loss``.
        n: how many examples the loss is a mean over.
        n_beta: n times the inverse temperature; None: n / ln n.
        gamma: the pull back to w*. It lowers the estimate where n_beta h isn't far larger
            (``exact.quadratic``).
        epsilon: step size. burn_in: first steps that are left out. draws: steps that count, by
            chain (of fewer than 8 there is no R-hat).
        mask: what is sampled: patterns of dotted names, or a pytree of booleans (``restrict``: a
            head); the rest keeps its bits.
        data: a pytree of arrays with a leading axis of examples. examples: of these, the ones that
            the loss is of: places or a mask (n is then how many they are). batch: examples of a
            step, drawn with replacement by every chain for itself; None: all of them.
        preconditioner: RMSProp(...); None: plain SGLD.
        chain_mode: chains in one batched product (small models), or one after the other ("mapped":
            large products).

    Raises:
        ConfigError: for numbers that can't be, or a mask that leaves nothing to sample.

    Example:
        >>> bowl = lambda w: 0.5 * (w["a"] ** 2).sum()
        >>> found = learning_coefficient(
        ...     bowl, {"a": jnp.zeros(4)}, n=1000, n_beta=100.0, gamma=0.0, epsilon=1e-3,
        ...     burn_in=200, draws=400, chains=8, key=jax.random.key(0))
        >>> abs(float(found.learning_coefficient) - 2.05) < 4 * float(found.standard_error)
        True
    """
    given, n_beta = n_beta, default_n_beta(n) if n_beta is None else n_beta
    burn_in, draws, chains = check_protocol(n, n_beta, gamma, epsilon, burn_in, draws, chains)
    check_chain_mode(chain_mode)
    check_preconditioner(preconditioner)
    require(
        isinstance(key, jax.Array | np.ndarray),
        f"key={key!r}; a random key is needed, such as jax.random.key(0)",
    )
    require(
        data is not None or batch is None,
        "batch is given without data: there is nothing to draw from",
    )
    require(
        data is not None or examples is None,
        "examples is given without data: there is nothing to choose from",
    )
    require(batch is None or batch > 0, f"batch={batch}; a positive number of examples is needed")
    w = jax.tree.map(jnp.asarray, params)
    check_floating(w)
    data = data if examples is None else taken(data, examples)
    if examples is not None and given is None:
        count = jax.tree.leaves(data)[0].shape[0]
        require(
            n == count,
            f"n={n}, but examples chooses {count}: n / ln n would be of another number than the"
            " loss",
        )
    loss = loss if data is not None else _of_params(loss)
    check_scalar(loss, w, data)
    protocol = Protocol(n, n_beta, n_beta / n, gamma, epsilon, burn_in, draws, chains)
    found = _program(
        loss,
        w,
        data,
        flat_mask(w, mask),
        key,
        n_beta,
        gamma,
        epsilon,
        burn_in=burn_in,
        draws=draws,
        chains=chains,
        batch=batch,
        preconditioner=preconditioner,
        chain_mode=chain_mode,
    )
    return found._replace(protocol=protocol)


def default_n_beta(n: Real) -> float:
    """n / ln n, the temperature of the widely applicable Bayesian information criterion."""
    _number("n", n)
    require(n > 1, f"n={n}; more than one example is needed for n / ln n")
    return n / math.log(n)


def check_protocol(
    n: Real, n_beta: Real, gamma: Real, epsilon: Real, burn_in: int, draws: int, chains: int
) -> tuple[int, int, int]:
    """The last three as whole numbers. Raises ConfigError for numbers that no estimate can be made
    with.
    """
    for name, value in (("n", n), ("n_beta", n_beta), ("gamma", gamma), ("epsilon", epsilon)):
        _number(name, value)
    for name, value in (("n", n), ("n_beta", n_beta), ("epsilon", epsilon)):
        flat = (
            " (a sweep without a plateau chooses none: take more draws, or other step sizes)"
            if math.isnan(value)
            else ""
        )
        require(0 < value < math.inf, f"{name}={value}; a positive number is needed{flat}")
    require(0 <= gamma < math.inf, f"gamma={gamma}; 0 (no localisation) or more is needed")
    for name, value, least in (("burn_in", burn_in, 0), ("draws", draws, 1), ("chains", chains, 1)):
        require(whole(name, value) >= least, f"{name}={value}; at least {least} is needed")
    return int(burn_in), int(draws), int(chains)


def _number(name: str, value: Any) -> None:
    require(isinstance(value, numbers.Real | jax.Array), f"{name}={value!r}; a number is needed")


def check_chain_mode(chain_mode: ChainMode) -> None:
    """Raises ConfigError for an unknown one."""
    known = get_args(ChainMode)
    require(
        chain_mode in known,
        f"chain_mode={chain_mode!r} is unknown; {nearest(str(chain_mode), known)}",
    )


def check_preconditioner(preconditioner: RMSProp | None) -> None:
    """Raises ConfigError for what preconditions nothing."""
    fits = preconditioner is None or isinstance(preconditioner, RMSProp)
    require(
        fits, f"preconditioner={preconditioner!r}; RMSProp(alpha=0.99, eps=0.1) or None is needed"
    )


def check_floating(params: Params) -> None:
    """Raises ConfigError where there is nothing to sample, or an array of numbers that can't be
    moved a little.
    """
    arrays = dotted(params)
    require(len(arrays) > 0, "the parameters hold no array; there is nothing to sample")
    for name, x in arrays.items():
        require(
            jnp.issubdtype(x.dtype, jnp.floating),
            f"the parameter '{name}' is of {x.dtype}; floating point numbers are needed",
        )


def check_scalar(loss: BatchLoss, params: Params, data: PyTree) -> None:
    """Raises ConfigError for a loss that isn't one number."""
    found = jax.eval_shape(loss, params, data)
    shape = found.shape if isinstance(found, jax.ShapeDtypeStruct) else jax.tree.structure(found)
    require(
        shape == (), f"the loss gives {shape} in place of one number; return the mean over examples"
    )


@functools.lru_cache(maxsize=256)
def _of_params(loss: Any) -> BatchLoss:
    """The loss with a batch that it doesn't look at: one object a loss, which compiled programs are
    kept by.
    """
    return lambda params, batch: loss(params)


def estimate(
    loss: BatchLoss,
    params: Params,
    data: PyTree,
    mask: Bool[Array | np.ndarray, " parameter"] | None,
    key: PRNGKey,
    n_beta: Number | int,
    gamma: Number | int,
    epsilon: Number | int,
    *,
    burn_in: int,
    draws: int,
    chains: int,
    batch: int | None = None,
    preconditioner: RMSProp | None = None,
    chain_mode: ChainMode = "vmapped",
) -> LearningCoefficient:
    """``learning_coefficient`` inside a compiled program: nothing is checked, numbers may be
    traced, protocol is NaN.
    """
    options = {"n_beta": n_beta, "gamma": gamma, "epsilon": epsilon, "mask": mask}
    sampler = sgld(loss, params, **options, burn_in=burn_in, preconditioner=preconditioner)

    def chain(key: PRNGKey) -> tuple[Any, Any]:
        def _step(state: Any, key: PRNGKey) -> tuple[Any, Any]:
            noise, choice = jax.random.split(key)
            return sampler.step(
                noise, state, data if batch is None else _drawn(choice, data, batch)
            )

        begin, steps = jax.random.split(key)
        state, infos = jax.lax.scan(
            _step, sampler.init(begin, params), jax.random.split(steps, burn_in + draws)
        )
        return sampler.result(state), infos

    keys = jax.random.split(key, chains)
    means, infos = jax.vmap(chain)(keys) if chain_mode == "vmapped" else jax.lax.map(chain, keys)
    return _judged(means, infos, loss(params, data), n_beta, burn_in, whole=batch is None)


_program = jax.jit(
    estimate,
    static_argnames=("loss", "burn_in", "draws", "chains", "batch", "preconditioner", "chain_mode"),
)


def _drawn(key: PRNGKey, data: PyTree, batch: int) -> PyTree:
    """That many examples, with replacement."""
    leaves = jax.tree.leaves(data)
    chosen = jax.random.randint(key, (batch,), 0, leaves[0].shape[0])
    return jax.tree.map(lambda x: x[chosen], data)


def _judged(
    means: Any, infos: Any, baseline: Scalar, n_beta: Number | int, burn_in: int, *, whole: bool
) -> LearningCoefficient:
    trace = infos.loss[:, burn_in:]
    by_chain = n_beta * (means.loss - baseline)
    found, bias = by_chain.mean(), means.discretisation_bias.mean()
    # Around the baseline, so that a loss that never varies has no rounding that varies.
    told = diagnose(trace - baseline)
    finite = jnp.isfinite(infos.loss).all() & jnp.isfinite(infos.distance).all()
    diverged = ~finite | ((found > 0) & (bias >= found))
    below = (trace < baseline).mean(dtype=trace.dtype)
    varied = jnp.square(n_beta) * (trace - baseline).var()
    flags = Flags(
        diverged=diverged,
        epsilon_too_large=diverged | ~(bias <= TOO_LARGE * jnp.abs(found)),
        negative=found < 0,
        below_start=below > 0.1,
        unmixed=~(told.r_hat <= UNMIXED),
    )
    nan = math.nan
    return LearningCoefficient(
        learning_coefficient=found,
        standard_error=n_beta * told.standard_error,
        by_chain=by_chain,
        baseline_loss=baseline,
        loss_trace=trace,
        burn_in_trace=infos.loss[:, :burn_in],
        distance_trace=infos.distance[:, burn_in:],
        acceptance=means.acceptance,
        discretisation_bias=bias,
        localisation=jnp.where((found > 0) & whole, 1 - varied / found, nan),
        r_hat=told.r_hat,
        effective_draws=told.effective_draws,
        share_below_start=below,
        flags=flags,
        protocol=Protocol(nan, nan, nan, nan, nan, burn_in, trace.shape[1], trace.shape[0]),
    )
