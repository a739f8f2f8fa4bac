"""Copies of versions outside of any worktree, and bringing them to another version."""
