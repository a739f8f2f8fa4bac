"""Kernels of the search for thin factors."""
