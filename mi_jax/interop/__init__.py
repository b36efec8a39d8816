"""Interop: other people's formats of weights and graphs."""
