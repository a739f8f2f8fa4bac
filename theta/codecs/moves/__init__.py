"""Small steps from a base, coded by how often the words of each context change."""
