"""Planted truths: networks whose every weight is known, to hold measures, probes and dates against."""

from mi_jax.planted.gromov import gromov
from mi_jax.planted.induction import backup_head, induction, unused_concept
from mi_jax.planted.network import Planted

__all__ = ["Planted", "backup_head", "gromov", "induction", "unused_concept"]
