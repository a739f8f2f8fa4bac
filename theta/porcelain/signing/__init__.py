"""Signatures of versions: by git, and as OpenSSF Model Signing has them."""
