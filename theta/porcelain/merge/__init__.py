"""Merging the checkpoints of several commits."""
