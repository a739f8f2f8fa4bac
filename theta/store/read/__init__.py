"""From the store to bytes: layers, whole checkpoints, any part of one."""
