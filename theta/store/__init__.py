"""Checkpoints as git objects: manifests, tensor trees, packs, digests, the stat cache."""
