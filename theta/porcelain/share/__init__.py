"""Pushes: the objects that travel, their parts, the limits of hosts; and objects that need not be here."""
