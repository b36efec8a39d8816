"""Basics that every room may import: errors, dims, streams, records, files, Fourier basis."""
