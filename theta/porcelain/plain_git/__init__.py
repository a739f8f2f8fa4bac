"""What lets git work on checkpoints without theta's commands: filter and hooks."""
