"""Merging checkpoints: three-way states, strategies, containers."""
