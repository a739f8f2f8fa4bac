"""Checkpoint files of the worktree as the store reads them."""
