"""Measuring: chooses measures, compiles them into one program, reads a trajectory with it, stores
and merges the readings, and reads their nulls.
"""
