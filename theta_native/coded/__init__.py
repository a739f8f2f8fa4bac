"""Parts of coded chunks that are decoded by one call: of a small tensor, calls cost more than words."""
