"""The commands without a command line: each takes a request and returns a result."""
