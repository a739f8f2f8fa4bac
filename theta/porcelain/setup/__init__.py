"""What theta sets up in a repository: launcher, hooks, filter, attributes, sparse patterns."""
