"""Masks of the sampled parameters: from patterns, of a head, and over flat parameters."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.landscape import restrict
from mi_jax.landscape.restriction import flat_mask
from mi_jax.models import Transformer
from mi_jax.tasks import ModularArithmetic

_SHAPES = {
    "blocks": {"0": {"attn": {"W_Q": np.zeros((3, 4, 2)), "b_Q": np.zeros((3, 2))}}},
    "embed": {"W_E": np.zeros((5, 4))},
}


def _true(mask: Any) -> dict[str, int]:
    return {name: int(x.sum()) for name, x in dotted(mask).items()}


def test_patterns_choose_arrays_by_dotted_name() -> None:
    assert _true(restrict(_SHAPES, "embed.*")) == {
        "blocks.0.attn.W_Q": 0,
        "blocks.0.attn.b_Q": 0,
        "embed.W_E": 20,
    }
    assert _true(restrict(_SHAPES, "*W_?")) == {
        "blocks.0.attn.W_Q": 24,
        "blocks.0.attn.b_Q": 0,
        "embed.W_E": 20,
    }
    assert _true(restrict(_SHAPES, "embed.W_E", "*.b_Q")) == {
        "blocks.0.attn.W_Q": 0,
        "blocks.0.attn.b_Q": 6,
        "embed.W_E": 20,
    }


def test_an_entry_is_a_head() -> None:
    mask = restrict(_SHAPES, "blocks.0.attn.*", entry=1)
    assert _true(mask) == {"blocks.0.attn.W_Q": 8, "blocks.0.attn.b_Q": 2, "embed.W_E": 0}
    assert mask["blocks"]["0"]["attn"]["W_Q"][1].all()
    with pytest.raises(
        ConfigError, match=r"entry=3 must lie between -3 and 2: .*W_Q has 3 entries"
    ):
        restrict(_SHAPES, "blocks.0.attn.*", entry=3)


def test_the_flat_mask_has_the_order_of_the_flat_parameters() -> None:
    numbered = {"b": np.arange(3.0), "a": {"W": 10 + np.arange(4.0).reshape(2, 2)}}
    flat = np.asarray(ravel_pytree(numbered)[0])
    mask = flat_mask(numbered, {"b": numbered["b"] == 1, "a": {"W": numbered["a"]["W"] > 11}})
    assert mask is not None
    assert flat[mask].tolist() == [12, 13, 1]
    assert flat_mask(numbered, None) is None


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names() -> None:
    model = Transformer(d_model=8, heads=2, d_mlp=8).build(ModularArithmetic(p=5).inputs)
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(
        ConfigError,
        match=r"'blocks.0.atn.W_Q' matches none of the parameters; did you mean blocks\.0\.attn",
    ):
        restrict(params, "blocks.0.atn.W_Q")
    with pytest.raises(ConfigError, match="matches none"):
        restrict(params)
