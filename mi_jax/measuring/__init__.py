"""Measuring: measures chosen, compiled into one program, run over a trajectory, stored and merged;
and their nulls.
"""
