"""Read-only views of a repository, a commit, a checkpoint and a tensor."""
