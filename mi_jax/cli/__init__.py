"""The command line, ``mi-jax``."""
