"""One repository, its index and its worktree, in agreement."""
