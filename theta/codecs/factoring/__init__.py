"""Low rank: thin factors of whole numbers, and how those of a difference are found."""
