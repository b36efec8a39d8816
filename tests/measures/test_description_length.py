"""Bits of the online code: brute force, random labels, and labels that are easy to decode."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mi_jax.contracts import Reference, Subject
from mi_jax.measures import probe_mdl
from mi_jax.measures.description_length import SHARPNESS, block_ends, online_bits
from mi_jax.measuring.program import make_context
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import MLP, capture
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.losses import CrossEntropy


def _vectors(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(d).normal(size=(n, d))


_online_bits = jax.jit(online_bits, static_argnums=2, static_argnames=("kind", "ridge"))


def _bits(
    X: np.ndarray, values: list[np.ndarray], classes: tuple[int, ...], **options: object
) -> np.ndarray:
    return np.asarray(
        _online_bits(jnp.asarray(X, jnp.float32), jnp.asarray(np.stack(values)), classes, **options)
    )  # pyright: ignore


def test_the_code_matches_scikit_learns_probes_block_by_block() -> None:
    X, n, classes, ridge = _vectors(60, 4), 60, 3, 1e-2
    y = np.digitize(X[:, 0] + 0.3 * X[:, 1], [-0.5, 0.5])
    ends = block_ends(n)
    assert ends == (1, 2, 4, 8, 15, 30, 60)
    nats = np.zeros(len(SHARPNESS["ridge"]))
    for start, end in pairwise(ends):
        around = X - X[:start].mean(axis=0)
        variance = (around[:start] ** 2).mean() or 1.0
        probe = Ridge(alpha=start * ridge * variance).fit(
            around[:start], np.eye(classes)[y[:start]]
        )
        scores = probe.predict(around[start:end])
        for i, beta in enumerate(SHARPNESS["ridge"]):
            p = np.exp(beta * scores) / np.exp(beta * scores).sum(axis=1, keepdims=True)
            nats[i] -= np.log(p[np.arange(end - start), y[start:end]]).sum()
    expected = np.log2(classes) * ends[0] - np.log2(np.exp(-nats).mean())
    assert _bits(X, [y], (classes,), ridge=ridge)[0] == pytest.approx(expected, rel=2e-4)
    assert expected < 0.8 * n * np.log2(classes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n"), [("ridge", 500), pytest.param("logistic", 250, marks=pytest.mark.slow)]
)
def test_random_labels_take_as_many_bits_as_the_uniform_code(kind: str, n: int) -> None:
    rng, classes = np.random.default_rng(0), (2, 59)
    values = [rng.integers(c, size=n) for c in classes]
    np.testing.assert_allclose(
        _bits(_vectors(n, 16), values, classes, kind=kind), n * np.log2(classes), rtol=0.05
    )


@pytest.mark.slow
def test_easy_labels_take_few_bits_and_a_constant_site_saves_none() -> None:
    X = _vectors(400, 3)
    y = (X[:, 0] > 0).astype(int)
    assert _bits(4 * y[:, None] + 0.1 * X, [y], (2,))[0] < 30
    assert _bits(0 * X, [y], (2,))[0] == pytest.approx(400, rel=0.05)


@pytest.mark.slow
def test_the_answer_of_a_random_operation_takes_all_its_bits() -> None:
    task = ModularArithmetic(p=13, operation="random", fraction=0.5)
    model = MLP(width=16).build(task.inputs)
    one = probe_mdl(sites=("hidden.0.post",), concepts=("answer", "a"))
    subject = Subject(model, task, CrossEntropy())
    read = measure_weights(
        model.init(jax.random.key(0)), subject, [one], {"experiment": {}, "hash": ""}
    )[one.name]
    bits = 169 * np.log2(13)
    assert read.attrs["units"] == "bits"
    assert float(read.sel(concept="answer").squeeze()) == pytest.approx(bits, rel=0.05)
    assert float(read.sel(concept="a").squeeze()) < 0.95 * bits
    # The same number again: the code of the neurons' activations in the order of the measure.
    context = make_context(subject, 0, Reference(), [one])
    inputs = np.concatenate(
        [np.asarray(context.batches[split].inputs) for split in sorted(context.batches)]
    )
    _, seen = capture(model.apply, ["hidden.0.post"])(
        model.init(jax.random.key(0)), jnp.asarray(inputs), positions=context.read
    )
    order = np.random.default_rng(1).permutation(len(inputs))
    labels = np.asarray(context.labels["answer"].values)[order]
    sent = _bits(
        np.asarray(seen["hidden.0.post"]).reshape(len(inputs), -1)[order], [labels], (13,)
    )[0]
    assert float(read.sel(concept="answer").squeeze()) == pytest.approx(sent, rel=1e-3)
