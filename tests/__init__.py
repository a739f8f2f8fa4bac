"""The tests of theta."""
