"""theta: version control for machine-learning checkpoints on ordinary Git repositories."""

from theta._version import __version__

__all__ = ["__version__"]
