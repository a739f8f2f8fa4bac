"""Parts of :class:`theta.Run`: pushes behind the program, and warnings."""
