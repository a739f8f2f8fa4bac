"""Git commands that theta drives: what they may bring, what they overwrite, where they stop."""
