"""Networks that their users wrote with Flax or Equinox, as models.

Flax and Equinox are imported only when a network of theirs is built.
"""

from mi_jax.models.modules.base import ModuleArchitecture
from mi_jax.models.modules.calls import Here
from mi_jax.models.modules.equinox import EquinoxModule
from mi_jax.models.modules.linen import LinenModule
from mi_jax.models.modules.nnx import NnxModule

__all__ = ["EquinoxModule", "Here", "LinenModule", "ModuleArchitecture", "NnxModule"]
