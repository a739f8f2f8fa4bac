"""Files with pickles in them that are not PyTorch's, and what any pickle would call."""
