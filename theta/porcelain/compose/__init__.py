"""Recipes whose result is a model of its own: the models that they name, the result, and its commit."""
