"""The parameters with which a merge scores best."""
