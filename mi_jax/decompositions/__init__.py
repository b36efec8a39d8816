"""Decompositions: readings of the weights alone: factors, spectra, parts."""
