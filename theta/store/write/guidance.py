"""Facts about the tensors of a file that one part of them learns from another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guidance:
    """Facts about the rest of a file when a part of its tensors is stored.

    Attributes:
        found_none: whether the first tensors of the file were searched in vain for structure; None if
            nobody knows, because these tensors are the first, or all.
        comparing: whether small tensors are compared with bases, because others are large enough.
    """

    found_none: bool | None = None
    comparing: bool = False


ALONE = Guidance()
"""Nothing is known: these are all tensors of the file."""


@dataclass(frozen=True)
class Searched:
    """The tensors that were searched in full: how many had a base, and how many structure.

    Attributes:
        compared: those that were compared.
        structured: those of them that are not stored as words.
    """

    compared: int = 0
    structured: int = 0

    def __add__(self, other: Searched) -> Searched:
        return Searched(self.compared + other.compared, self.structured + other.structured)
