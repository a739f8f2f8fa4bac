"""The object database: reading objects, and writing packs."""
