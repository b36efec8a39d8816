"""Dimensions of sites that several models have."""

NEURON_DIMS = ("batch", "position", "neuron")
LOGIT_DIMS = ("batch", "position", "class")
