"""A gate: rules that a checkpoint must keep, checked on its values, its shapes and the files beside it."""
