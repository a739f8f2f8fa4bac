"""The work of commands, without printing."""
