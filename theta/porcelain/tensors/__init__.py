"""Reading tensors from files and revisions, and writing them to new files and adapters."""
