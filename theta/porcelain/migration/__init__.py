"""Histories whose files lie in other stores become histories of checkpoints, and the way back."""
