"""HDF5, and Keras's files that are built on it."""
