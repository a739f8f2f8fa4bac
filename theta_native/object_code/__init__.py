"""Kernels as object code: made by numba once, and called without it."""
