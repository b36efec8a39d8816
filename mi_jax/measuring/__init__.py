"""Measuring: chooses measures, compiles them into one program, runs it over a trajectory, stores and
merges the readings, and reads their nulls.
"""
