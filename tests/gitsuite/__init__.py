"""git's own test suite, run through theta."""
