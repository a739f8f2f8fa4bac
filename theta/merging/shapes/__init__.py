"""Versions of a tensor that differ in dtype or in the number of rows, and their merges."""
