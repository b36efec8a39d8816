"""Faithfulness: the loss when the network keeps only what the explanation names, or all but that
(arXiv 2301.05217, section 4.4).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_jax.basics.dims import Params
from mi_jax.basics.fourier import fourier_basis
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_answers, table_inputs, table_logits, table_neurons
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, unembedding_table
from mi_jax.measures.neurons import (
    CLUSTER_FVE,
    clustered,
    frequency_blocks,
    from_blocks,
    neuron_blocks,
    read_out,
    table_shares,
)
from mi_jax.measures.progress import component_mask, key_part

_INTACT, _DIRECTIONS, _BLOCKS, _OUTPUT, _NULL, _POLYNOMIAL = _NAMES = (
    "ablation_loss_intact",
    "ablation_loss_neuron_directions",
    "ablation_loss_logit_blocks",
    "ablation_loss_output_directions",
    "ablation_loss_null_space",
    "ablation_loss_polynomial_neurons",
)


def ablation_loss() -> Measure:
    """Loss of the run over all pairs when only a part of the network is kept.

    A [pair neuron] are the neurons' activations, which are replaced in the forward pass (if the
    readout is linear: in what they add to the logits, A W_L, which gives the same loss). L are the
    logits. The key frequencies k are those of the final model. The variables
    ``ablation_loss_{part}`` are, by part:

        intact: the network as it is.
        neuron_directions: A becomes its mean over the pairs plus its parts along c_k and s_k.
        logit_blocks: L keeps the constant of its 2-D Fourier transform and, for each k, the block
            {0, cos k, sin k} x {0, cos k, sin k}.
        output_directions: A is projected on the span of W_L F_k, F_k the cosine and sine rows of F.
        null_space: A is projected on the orthogonal complement of that span.
        polynomial_neurons: each neuron that one frequency explains to at least .85 keeps its mean
            and the block {0, cos, sin} x {0, cos, sin} of its own frequency, a polynomial of degree
            2 in cosines and sines of the inputs; other neurons stay as they are.

    The explanation is faithful if the kept parts have about the intact loss, and ``null_space``
    about the loss of chance.

    Returns:
        A Measure with these six scalars, in the units of the run's loss. It needs the final
        parameters, the roles ``neurons`` and ``output_map``, and a task on all pairs with a cyclic
        answer.
    """

    def _ablation_loss(params: Params, context: Context) -> dict[str, Array]:
        keys, logits = context.prepared["final_key_frequencies"], table_logits(params, context)
        linear = context.model.roles.linear_readout
        changed = (_through_readout if linear else _through_model)(params, context, keys)
        losses = {name: _loss(kept_logits, context) for name, kept_logits in changed.items()}
        return {
            _INTACT: _loss(logits, context),
            _BLOCKS: _loss(_key_blocks(logits, keys), context),
            **losses,
        }

    return Measure(
        "ablation_loss",
        _ablation_loss,
        dict.fromkeys(_NAMES, ()),
        roles=("neurons", "output_map"),
        ground_truth=("table", "answer", "residues", "cyclic_answer"),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        null="other_frequencies",
        options={"keys": "final", "table": "W_L", "fve": CLUSTER_FVE},
        units="loss",
        source=SOURCE,
    )


def _loss(logits: Float[Array, "token token_other class"], context: Context) -> Float[Array, ""]:
    flat = logits.reshape(-1, 1, context.inputs.classes)
    return context.loss(flat, table_answers(context).reshape(-1, 1)).mean()


def _through_readout(
    params: Params, context: Context, keys: Bool[Array, " frequency"]
) -> dict[str, Array]:
    """Logits of all pairs by what is kept of the neurons, for a linear readout.

    The neurons add A W_L to the logits, so A W_L is changed and no forward pass is needed.
    """
    p, logits = context.inputs.classes, table_logits(params, context)
    read = read_out(params, context)
    W_L, waves = unembedding_table(params, context).T, _key_waves(keys, p)
    directions = W_L @ waves
    within = read @ (waves @ _pinv(directions.T @ directions) @ (directions.T @ W_L))
    changes = {
        _DIRECTIONS: read.mean(axis=0, keepdims=True) + key_part(read, keys, context) - read,
        _OUTPUT: within - read,
        _NULL: -within,
        _POLYNOMIAL: _polynomial_read_out(params, context).reshape(p * p, p) - read,
    }
    return {name: logits + change.reshape(p, p, p) for name, change in changes.items()}


def _through_model(
    params: Params, context: Context, keys: Bool[Array, " frequency"]
) -> dict[str, Array]:
    """Logits of all pairs by what is kept of the neurons, for any model.

    Each entry costs one forward pass with the neurons replaced.
    """
    p, table = context.inputs.classes, table_neurons(params, context)
    neurons = table.reshape(p * p, -1)
    directions = unembedding_table(params, context).T @ _key_waves(keys, p)
    within = neurons @ directions @ _pinv(directions.T @ directions) @ directions.T
    replaced = {
        _DIRECTIONS: neurons.mean(axis=0, keepdims=True) + key_part(neurons, keys, context),
        _OUTPUT: within,
        _NULL: neurons - within,
        _POLYNOMIAL: _polynomial(params, context).reshape(p * p, -1),
    }
    return {
        name: _logits_with(params, context, activations) for name, activations in replaced.items()
    }


def _logits_with(
    params: Params, context: Context, neurons: Float[Array, "pair neuron"]
) -> Float[Array, "token token_other class"]:
    """Logits of all pairs from a forward pass with the neurons at the read position replaced."""
    site, p = context.model.roles.neurons, context.inputs.classes
    assert site is not None
    taps = {site: lambda value: neurons[:, None, :]}
    out = context.model.apply(params, table_inputs(context), taps=taps, positions=context.read)
    return out[:, 0, :p].reshape(p, p, p)


def _key_waves(keys: Bool[Array, " frequency"], p: int) -> Float[Array, "class component"]:
    """Cosines and sines of the key frequencies over the classes; other columns are 0."""
    return jnp.asarray(fourier_basis(p))[1:].T * component_mask(keys, p)[None, :]


def _pinv(gram: Float[Array, "component component"]) -> Float[Array, "component component"]:
    """Pseudo-inverse of a Gram matrix."""
    # The cutoff removes the zero rows and columns of the frequencies that are not key; without it
    # their rounding errors would be inverted.
    return jnp.linalg.pinv(gram, rtol=1e-5, hermitian=True)


def _key_blocks(
    table: Float[Array, "token token_other unit"], keys: Bool[Array, " frequency"]
) -> Float[Array, "token token_other unit"]:
    """Constant and blocks {0, cos k, sin k} x {0, cos k, sin k} of the key frequencies."""
    blocks = from_blocks(frequency_blocks(table) * keys[:, None, None, None], table.shape[0])
    return blocks + table.mean(axis=(0, 1), keepdims=True)


def _explained(shares: Float[Array, "neuron frequency"]) -> Float[Array, "frequency neuron"]:
    """1 at the frequency that explains at least ``CLUSTER_FVE`` of a neuron, 0 elsewhere."""
    return clustered(shares).T.astype(jnp.float32)


def _polynomial(params: Params, context: Context) -> Float[Array, "token token_other neuron"]:
    """Neurons over all pairs, with each clustered one replaced by its polynomial and its mean."""
    table, explained = table_neurons(params, context), _explained(table_shares(params, context))
    polynomial = from_blocks(
        neuron_blocks(params, context) * explained[:, None, None, :], table.shape[0]
    )
    return jnp.where(
        explained.any(axis=0)[None, None],
        polynomial + table.mean(axis=(0, 1), keepdims=True),
        table,
    )


def _polynomial_read_out(
    params: Params, context: Context
) -> Float[Array, "token token_other class"]:
    """``_polynomial`` times W_L: what the replaced neurons add to each logit."""
    table, explained = table_neurons(params, context), _explained(table_shares(params, context))
    W_L, has = unembedding_table(params, context).T, explained.any(axis=0)
    # The blocks are multiplied by W_L before they are expanded to all pairs: classes are fewer than
    # neurons.
    blocks = jnp.einsum("kijn,kn,nc->kijc", neuron_blocks(params, context), explained, W_L)
    rest = (
        table @ jnp.where(has[:, None], 0, W_L)
        + ((table.mean(axis=(0, 1)) * has) @ W_L)[None, None]
    )
    return from_blocks(blocks, table.shape[0]) + rest
