"""Merging checkpoints: three-way states of tensors, strategies, and the file of the result."""
