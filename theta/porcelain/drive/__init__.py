"""Running git commands: what they write and overwrite, and where they stop."""
