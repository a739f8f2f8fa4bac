"""Versions of one line of history: what they become together, and what they came from."""
