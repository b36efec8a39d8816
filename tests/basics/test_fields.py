"""Fields of settings: bounds of sweepable numbers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import check_bounds, sweepable, sweepable_numbers


@dataclass(frozen=True)
class Settings:
    """Sweepable fields with every kind of bound."""

    rate: float = sweepable(0.1, minimum=0)
    momentum: float = sweepable(0.0, minimum=0, below=1)
    clip: float | None = sweepable(None, above=0)
    share: float = sweepable(0.5, above=0, maximum=1)
    free: float = sweepable(-3.0)
    name: str = "no number"

    def __post_init__(self) -> None:
        check_bounds(self)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": 0, "momentum": 0.999, "clip": 1e-30, "share": 1},
        {"rate": float(np.finfo(np.float32).max), "clip": None, "free": -1e38},
        {"rate": np.float32(0.5)},
    ],
)
def test_values_within_their_bounds_are_accepted(settings: dict[str, Any]) -> None:
    assert set(sweepable_numbers(Settings(**settings))) >= {"rate", "momentum", "share", "free"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": -1}, r"^rate=-1: must be a finite number of at least 0\.$"),
        ({"rate": math.nan}, "^rate=nan: must be a finite number of at least 0"),
        ({"rate": math.inf}, r"^rate=inf: .* at least 0\. It must fit float32, up to 3\.4e\+38\.$"),
        ({"rate": 1e39}, r"^rate=1e\+39: .*float32"),
        ({"rate": None}, r"^rate=None: must be a finite number of at least 0\.$"),
        ({"rate": "fast"}, "^rate=fast: must be a finite number"),
        ({"momentum": 1}, r"^momentum=1: must be at least 0 and less than 1\.$"),
        ({"momentum": -0.1}, "^momentum=-0.1: must be at least 0 and less than 1"),
        ({"clip": 0.0}, r"^clip=0\.0: must be a finite number above 0, or None for none\.$"),
        ({"share": 0}, r"^share=0: must be above 0 and at most 1\.$"),
        ({"share": 1.1}, r"^share=1\.1: must be above 0 and at most 1\.$"),
        ({"free": -math.inf}, "^free=-inf: must be a finite number"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**settings)
