"""Waiting for what a program writes to a terminal."""

from __future__ import annotations

import select


def is_readable(descriptor: int, seconds: float) -> bool:
    """Return whether there is something to read before ``seconds`` are over; any descriptor may be asked."""
    waiting = select.poll()  # select() takes numbers below 1024 only, and a session may have more open
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(1000 * seconds))
