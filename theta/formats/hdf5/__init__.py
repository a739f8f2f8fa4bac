"""HDF5, and Keras's files, which contain it."""
