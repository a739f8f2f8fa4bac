"""Pickles read as data: the machine that follows them, and walks through what it made."""
