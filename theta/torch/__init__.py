"""Hooks into PyTorch: storage of torch.distributed.checkpoint in a run."""

from theta.torch.storage_reader import StorageReader
from theta.torch.storage_writer import StorageWriter

__all__ = ["StorageReader", "StorageWriter"]
