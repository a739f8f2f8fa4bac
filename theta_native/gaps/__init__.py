"""Coding of what happens to a few of many words, at a cost for these few."""
