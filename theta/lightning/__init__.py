"""Hooks into Lightning: its checkpoints in a run."""

from theta.lightning.checkpoint_io import CheckpointIO

__all__ = ["CheckpointIO"]
