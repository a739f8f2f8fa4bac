"""What is stored: manifests, names, listings, skeletons, records of tensors."""
