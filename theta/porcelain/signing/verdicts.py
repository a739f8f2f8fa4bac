"""Verdicts on signatures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SignatureState(Enum):
    """A signature is good, bad, or of a key that is not known here."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class SignatureVerdict:
    """One signature: its kind, the verdict on it, its signer or what is wrong, and what differs from it."""

    what: str
    state: SignatureState
    told: str
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "what": self.what,
            "state": self.state.value,
            "told": self.told,
            "differences": list(self.differences),
        }
