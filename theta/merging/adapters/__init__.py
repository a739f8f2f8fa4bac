"""Low-rank adapters: how matrices lie, extracting one, merging several."""
