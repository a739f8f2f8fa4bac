"""Everything that touches pygit2 or runs git."""
