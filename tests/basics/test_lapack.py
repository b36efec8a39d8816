"""Decompositions of many matrices against NumPy's; measuring programs without deadlocks."""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_experiment
from jaxtyping import Array

from mi_jax.basics import lapack
from mi_jax.basics.dims import Params
from mi_jax.basics.errors import MeasureError
from mi_jax.contracts import Context, Measure, Reference
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.program import BATCH, Reader, make_context
from mi_jax.measuring.registry import EXPENSIVE
from mi_jax.models import MLP, Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import GroupComposition, MultiDigitAddition

_MANY = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "outer",
    [lambda f: f, jax.vmap, lambda f: jax.vmap(jax.vmap(f))],
    ids=["batch", "vmap", "twice"],
)
def test_every_matrix_has_numpys_decomposition(outer: Callable[..., Any]) -> None:
    def of(function: Callable[..., Any]) -> Any:
        return jax.jit(outer(function))(jnp.asarray(_MANY))

    np.testing.assert_allclose(
        of(lapack.singular_values), np.linalg.svd(_MANY, compute_uv=False), rtol=1e-5
    )
    u, s, vt = of(lapack.svd)
    np.testing.assert_allclose(u * s[..., None, :] @ vt, _MANY, atol=1e-5)
    Q, R = of(lapack.qr)
    np.testing.assert_allclose(Q @ R, _MANY, atol=1e-5)
    np.testing.assert_allclose(of(lapack.triangle), R, atol=1e-5)
    eigenvalues = jax.jit(lapack.eigenvalues)(jnp.asarray(_MANY[..., :4, :]))
    np.testing.assert_allclose(
        eigenvalues.prod(axis=-1), np.linalg.det(_MANY[..., :4, :]), rtol=1e-4
    )


def _waiting(experiment: Experiment, measures: Sequence[Measure]) -> list[str]:
    """Lines of the measuring program in which a thread of XLA's pool waits for other threads."""
    subject = experiment.subject()
    params = subject.model.init(jax.random.key(0))
    stack = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], BATCH, axis=0), params)
    chosen, _ = choose(list(measures), subject)
    chosen = [measure for measure in chosen if "previous" not in measure.uses]
    context = make_context(subject, 0, Reference(initial=params, final=params), chosen)
    reader = Reader(chosen, subject.precision)
    text = (
        jax.jit(lambda stack, n: reader._batch(stack, None, context, n)).lower(stack, 1).as_text()
    )
    batched = re.compile(r"tensor<(\d+x){3,}")
    lines = [line for line in text.splitlines() if "lapack_" in line or "blas_" in line]
    return [line for line in lines if batched.search(line)] + [
        line for line in text.splitlines() if "stablehlo.fft" in line
    ]


_SUBJECTS = {
    "a transformer": tiny_experiment(model=Transformer(layers=2, d_model=8, heads=2, d_mlp=16)),
    "addition": tiny_experiment(
        task=MultiDigitAddition.smallest(), model=Transformer(d_model=8, heads=2, d_mlp=16)
    ),
    "a group": tiny_experiment(task=GroupComposition("S3"), model=MLP(width=8)),
}


@pytest.mark.parametrize("name", _SUBJECTS)
def test_no_reading_waits_in_the_thread_pool(name: str) -> None:
    experiment = _SUBJECTS[name]
    everything, _ = choose(None, experiment.subject())
    assert _waiting(experiment, everything) == []


@pytest.mark.slow
@pytest.mark.parametrize("measure", EXPENSIVE)
def test_no_expensive_reading_waits_in_the_thread_pool(measure: str) -> None:
    for name in ("a transformer", "a group"):
        with contextlib.suppress(MeasureError):
            assert _waiting(_SUBJECTS[name], [EXPENSIVE[measure]]) == []


def test_a_batched_call_is_found() -> None:
    def triangles(params: Params, context: Context) -> Array:
        return jnp.linalg.qr(params["blocks"]["0"]["attn"]["W_Q"], mode="r").sum()

    assert len(_waiting(_SUBJECTS["a transformer"], [Measure("triangles", triangles)])) > 0
