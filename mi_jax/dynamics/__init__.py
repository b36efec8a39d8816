"""Dynamics: arrays in, dates out. Knows no model, and works on anyone's curves."""

from mi_jax.dynamics.transitions import Transitions, first_crossing, transitions

__all__ = ["Transitions", "first_crossing", "transitions"]
