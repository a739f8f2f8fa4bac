"""Reading pickles as data: a symbolic unpickler, and walks through the objects it returns."""
