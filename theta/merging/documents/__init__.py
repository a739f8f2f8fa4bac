"""Documents of recipes whose result is no three-way merge: stacks of layers, new vocabularies, adapters."""
