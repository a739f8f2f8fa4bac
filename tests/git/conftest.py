"""Formats of repositories."""

from __future__ import annotations

import pytest


@pytest.fixture
def of_libgit2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new repositories be such that libgit2 opens them, whatever git's defaults are in this session."""
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha1")
    monkeypatch.setenv("GIT_DEFAULT_REF_FORMAT", "files")
