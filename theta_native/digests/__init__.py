"""Digests of messages as kernels compute them."""
