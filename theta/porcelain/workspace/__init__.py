"""One repository: its commits, index and worktree, kept in agreement."""
