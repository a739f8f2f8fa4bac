"""Access to Git repositories, by pygit2 and by running git."""
