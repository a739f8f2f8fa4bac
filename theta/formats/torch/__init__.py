"""PyTorch's checkpoints of all its versions."""
