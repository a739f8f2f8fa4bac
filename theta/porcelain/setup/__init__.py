"""Setting up a repository: launcher, hooks, filter, attributes, sparse patterns."""
