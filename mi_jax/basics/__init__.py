"""Basics that every room may use: errors, dims, random streams, records, files, the Fourier basis
of Z_p.
"""
