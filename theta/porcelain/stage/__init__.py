"""Staging files and updates, and committing them."""
