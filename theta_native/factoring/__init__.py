"""Kernels of thin factors: of the search for them, and of what a reader computes with them."""
