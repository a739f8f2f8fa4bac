"""Hooks into JAX: pytrees as steps of a run."""

from theta.jax.pytrees import restore, save

__all__ = ["restore", "save"]
