"""Pickle files other than PyTorch's, and the scan for calls in any pickle."""
