"""Reordering the units of one model after those of another, before both are merged."""
