"""Files and updates become index entries and commits."""
