"""Faithfulness: the loss when only what the explanation names is kept, or when it is taken away (arXiv 2301.05217, 4.4)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_jax.arrays import Params
from mi_jax.contracts import Context, Measure
from mi_jax.measures.evaluation import table_answers, table_inputs, table_logits, table_neurons
from mi_jax.measures.fourier import FINAL_KEYS, SOURCE, fourier_basis, unembedding_table
from mi_jax.measures.neurons import CLUSTER_FVE, components_2d, neuron_components, table_shares
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
    """The run's loss over all pairs, by what is kept of the network. Key frequencies are the final model's.

    With A [pair neuron] the neurons' activations, replaced in the forward pass, and L the logits:
        intact: nothing is changed.
        neuron_directions: A becomes its mean over pairs + sum over key frequencies of its parts along c_k and s_k.
        logit_blocks: of the 2-D Fourier transform of L only the constant and, for each key frequency, the block {0, cos k, sin
            k}^2 are kept.
        output_directions: A is projected on the span of W_L F_k, cosine and sine, of the key frequencies.
        null_space: A is projected on what is orthogonal to that span.
        polynomial_neurons: each neuron that its frequency explains to at least .85 keeps the block {0, cos k, sin k}^2 of its own
            frequency alone, a polynomial of degree 2 in cosines and sines of its inputs.
    """

    def function(params: Params, context: Context) -> dict[str, Array]:
        keys = context.prepared["final_key_frequencies"]
        p = context.inputs.classes
        table = table_neurons(params, context)
        neurons = table.reshape(p * p, -1)
        span = _projector(unembedding_table(params, context).T @ fourier_basis(p)[1:].T * component_mask(keys, p)[None, :])
        replaced = {
            _DIRECTIONS: neurons.mean(axis=0, keepdims=True) + key_part(neurons, keys, context),
            _OUTPUT: neurons @ span,
            _NULL: neurons - neurons @ span,
            _POLYNOMIAL: _polynomial(params, context).reshape(p * p, -1),
        }
        logits = table_logits(params, context)
        blocks = _kept(logits, _key_blocks(keys, p))
        losses = {name: _loss(logits_with(params, context, one), context) for name, one in replaced.items()}
        return {_INTACT: _loss(logits, context), _BLOCKS: _loss(blocks, context), **losses}

    return Measure(
        "ablation_loss",
        function,
        dict.fromkeys(_NAMES, ()),
        roles=("neurons", "output_map"),
        concepts=("table", "answer", "residues", "cyclic_answer"),
        uses=frozenset({"final"}),
        prepare=FINAL_KEYS,
        null="frequencies",
        options={"keys": "final", "table": "W_L", "fve": CLUSTER_FVE},
        units="nats",
        source=SOURCE,
    )


def _loss(logits: Float[Array, "token token_other class"], context: Context) -> Float[Array, ""]:
    flat = logits.reshape(-1, 1, context.inputs.classes)
    return context.loss(flat, table_answers(context).reshape(-1, 1)).mean()


def logits_with(
    params: Params, context: Context, neurons: Float[Array, "pair neuron"], *, linear: bool | None = None
) -> Float[Array, "token token_other class"]:
    """Logits of all pairs with the neurons at the read position replaced.

    Args:
        linear: by L + (A' - A) W_L, which is exact where the readout is linear; or by a forward pass with the neurons tapped. By
            default whichever the model allows.
    """
    site, p = context.model.roles.neurons, context.inputs.classes
    assert site is not None
    if context.model.roles.linear_readout if linear is None else linear:
        change = neurons - table_neurons(params, context).reshape(neurons.shape)
        return table_logits(params, context) + (change @ unembedding_table(params, context).T).reshape(p, p, p)
    taps = {site: lambda value: neurons[:, None, :]}
    out = context.model.apply(params, table_inputs(context), taps=taps, positions=context.read)
    return out[:, 0, :p].reshape(p, p, p)


def _projector(directions: Float[Array, "neuron component"]) -> Float[Array, "neuron neuron"]:
    """The orthogonal projector on the span of the columns; columns of zeros add nothing."""
    gram = directions.T @ directions
    return directions @ jnp.linalg.pinv(gram, rtol=1e-5, hermitian=True) @ directions.T


def _kept(
    table: Float[Array, "token token_other unit"], mask: Float[Array, "component component_other"]
) -> Float[Array, "token token_other unit"]:
    """The table with its 2-D Fourier components multiplied by a mask."""
    return _back(components_2d(table) * mask[:, :, None])


def _back(components: Float[Array, "component component_other unit"]) -> Float[Array, "token token_other unit"]:
    F = jnp.asarray(fourier_basis(components.shape[0]))
    return jnp.einsum("ia,jb,ijn->abn", F, F, components)


def _key_blocks(keys: Float[Array, " frequency"] | Array, p: int) -> Float[Array, "component component_other"]:
    """1 at the constant and at {0, cos k, sin k}^2 of the key frequencies."""
    frequency = (jnp.arange(p) + 1) // 2
    held = jnp.concatenate([jnp.ones(1), component_mask(keys, p)])
    same = (frequency[:, None] == frequency[None, :]) | (frequency[:, None] == 0) | (frequency[None, :] == 0)
    return held[:, None] * held[None, :] * same


def _polynomial(params: Params, context: Context) -> Float[Array, "token token_other neuron"]:
    """The neurons, those with a frequency as the polynomial of degree 2 that it explains, with their mean."""
    table, components = table_neurons(params, context), neuron_components(params, context)
    shares = table_shares(params, context)
    frequency = ((jnp.arange(table.shape[0]) + 1) // 2)[:, None]
    held = (frequency == 1 + shares.argmax(axis=1)[None, :]) | (frequency == 0)
    explained = _back(components * (held[:, None, :] & held[None, :, :])) + table.mean(axis=(0, 1), keepdims=True)
    return jnp.where((shares.max(axis=1) >= CLUSTER_FVE)[None, None, :], explained, table)
