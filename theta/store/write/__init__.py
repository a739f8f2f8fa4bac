"""From values to the store: the plan of layers, bases, snapshots."""
