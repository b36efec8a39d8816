"""The same network with its parts in another order, which no measure may notice."""

from typing import Any

import numpy as np


def permuted(params: Any) -> Any:
    """A transformer of one layer with its heads and neurons in another order."""
    rng, block = np.random.default_rng(0), params["blocks"]["0"]
    heads, neurons = (rng.permutation(len(x)) for x in (block["attn"]["W_Q"], block["mlp"]["b_in"]))
    mlp = {
        "W_in": block["mlp"]["W_in"][:, neurons],
        "b_in": block["mlp"]["b_in"][neurons],
        "W_out": block["mlp"]["W_out"][neurons],
        "b_out": block["mlp"]["b_out"],
    }
    return {
        **params,
        "blocks": {
            "0": {"attn": {name: x[heads] for name, x in block["attn"].items()}, "mlp": mlp}
        },
    }
