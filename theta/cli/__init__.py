"""The command line: the only place that prints, prompts and reads the environment."""
