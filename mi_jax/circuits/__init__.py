"""Circuits: which components act on which: graph, attribution, search, evaluation."""
