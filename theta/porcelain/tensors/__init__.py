"""Tensors out of files and revisions: as values, as new files, as adapters."""
