"""Hooks into Keras: a callback that saves to a run and restores from it."""

from theta.keras.epochs import Checkpoint, restore

__all__ = ["Checkpoint", "restore"]
