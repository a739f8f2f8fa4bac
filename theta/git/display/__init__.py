"""How git shows things."""
