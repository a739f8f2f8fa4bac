"""PyTorch's checkpoints, all that it ever wrote."""
