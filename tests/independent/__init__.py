"""A second reader of theta's stored format, written from ``format.md`` and ``codecs.md`` alone.

It shares no code with theta, and needs Python's standard library, ``zstandard`` and the program ``git``.
It is small and slow: a reader to compare with, and an example for those who write one.
"""

from tests.independent.codecs import DECODERS
from tests.independent.primitives import RefusedError
from tests.independent.reader import restore

__all__ = ["DECODERS", "RefusedError", "restore"]
