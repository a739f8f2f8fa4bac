"""The two implementations of the protocols of a repository, and the choice between them."""
