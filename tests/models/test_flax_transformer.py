"""The transformer of experiments/flax_transformer.py beside the package's own on the same numbers:
outputs and readings on published weights, and a hundred steps of training.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mi_jax.basics.precision import computing_in
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.stored import measure_weights
from mi_jax.models import Transformer
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights
from mi_jax.training.state import Program

_FILE = Path(__file__).parents[2] / "experiments" / "flax_transformer.py"
_READ = {
    "train_loss",
    "test_loss",
    "restricted_loss",
    "excluded_loss",
    "gini_unembedding",
    "fourier_power_embedding",
    "key_frequencies",
    "cluster_sizes",
    "attention_pattern",
    "logit_fve",
}


def _as_flax(params: Any) -> dict[str, Any]:
    """Parameters of ``Transformer`` in the layout of flax, with any leading axes."""
    block = params["blocks"]["0"]
    turned = {
        name: {"kernel": np.moveaxis(np.asarray(block["attn"][f"W_{name[0].upper()}"]), -3, -2)}
        for name in ("query", "key", "value")
    }
    mlp = block["mlp"]
    return {
        "embed": {"embedding": params["embed"]["W_E"]},
        "positions": params["pos_embed"]["W_pos"],
        "attn": {**turned, "out": {"kernel": block["attn"]["W_O"]}},
        "mlp_in": {"kernel": mlp["W_in"], "bias": mlp["b_in"]},
        "mlp_out": {"kernel": mlp["W_out"], "bias": mlp["b_out"]},
        "unembed": {"kernel": params["unembed"]["W_U"]},
    }


def test_outputs_and_readings_on_published_weights_are_the_packages_own(published: Path) -> None:
    experiment = find("nanda_2023")
    experiment = replace(experiment, task=replace(experiment.task, split_seed=1))
    model = replace(find(str(_FILE)).model, d_model=128, d_mlp=512)
    subjects = [replace(experiment, model=one).subject() for one in (experiment.model, model)]
    params, _ = load_weights(published / "nanda_mod_add_wd0.1.npz", subjects[0].model)
    both = [params, _as_flax(params)]
    tokens = jax.numpy.array([[a, b, 113] for a in (0, 5, 112) for b in (1, 77)])
    ours, theirs = (
        np.asarray(jax.jit(lambda p, m=subject.model: m.apply(p, tokens, positions=(2,)))(one))
        for subject, one in zip(subjects, both, strict=True)
    )
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
    allowed = {one.name for one in choose(None, subjects[1])[0]}
    names = sorted(_READ & allowed)
    assert names == sorted(_READ)
    readings = []
    for subject, one in zip(subjects, both, strict=True):
        measures, _ = choose(names, subject)
        provenance = {"experiment": {}, "hash": "", "machine": {}}
        readings.append(measure_weights(one, subject, measures, provenance))
    for name in readings[0].data_vars:
        expected, found = (np.asarray(one[name], np.float64) for one in readings)
        np.testing.assert_allclose(
            found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=str(name)
        )


@pytest.mark.slow
def test_a_hundred_steps_of_training_are_those_of_the_packages_own_to_rounding() -> None:
    """In float64: in float32 the two sum in other orders, and training amplifies the rounding."""
    flax = find(str(_FILE))
    task = replace(flax.task, p=23)
    settings = {"task": task, "seeds": (0,), "precision": "float64", "steps": 100}
    mine = replace(flax, **settings, model=replace(flax.model, d_model=32, d_mlp=64))
    plain = replace(flax, **settings, model=Transformer(d_model=32, d_mlp=64))
    programs = [Program(plain.parts(route="plain")), Program(mine.parts())]
    first = programs[0].init()
    states = [first, programs[1].fresh(_as_flax(first.params), 0)]
    losses = []
    for program, state in zip(programs, states, strict=True):
        with computing_in("float64"):
            _, found = program.advance(state, program.parts.numbers, 100)
        losses.append(np.asarray(found)[0, :100])
    assert losses[0].dtype == np.float64
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-7)
    assert losses[0][-1] < losses[0][0] / 2
