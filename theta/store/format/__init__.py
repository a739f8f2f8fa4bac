"""The stored things: manifests, names, listings, skeletons, records of tensors."""
