"""Small files that are spread as large ones are."""

from __future__ import annotations

import pytest

from theta import parallel
from theta.engine import rounds


def spread(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """Let files of any size be spread, in parts of ``nbytes``, for the time of a test."""
    monkeypatch.setattr(parallel, "WORTH_SPREADING", 1)
    monkeypatch.setattr(rounds, "SMALLEST", nbytes)
    monkeypatch.setattr(rounds, "LARGEST", nbytes)
