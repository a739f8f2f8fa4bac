"""Archives that tensors lie in: zip and tar."""
