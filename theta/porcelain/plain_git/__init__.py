"""The filter and hooks, with which plain git works on checkpoints."""
