"""Archives that contain tensors: zip and tar."""
