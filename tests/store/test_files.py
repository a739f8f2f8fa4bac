"""Files that appear whole, and are durable when they do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from theta import _fs
from theta.errors import DiskError
from theta.store.files.file_source import FileSource


def test_what_is_written_after_an_early_sync_is_there_too(tmp_path: Path) -> None:
    with _fs.AtomicFile(tmp_path / "file") as file:
        file.write(b"first")
        file.begin_sync()
        file.write(b" second")
    assert (tmp_path / "file").read_bytes() == b"first second"


def test_an_early_sync_that_fails_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells of a failure once: the fsync after it succeeds."""
    sync, failures = os.fsync, [OSError(errno.EIO, "Input/output error")]

    def fails_once(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    file = _fs.AtomicFile(tmp_path / "file")
    file.write(b"data")
    file.begin_sync()
    with pytest.raises(DiskError), file:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_can_be_discarded_while_it_is_made_durable(tmp_path: Path) -> None:
    file = _fs.AtomicFile(tmp_path / "file")
    file.write(bytes(1 << 20))
    file.begin_sync()
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_was_told_to_forget_is_read_again(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    with FileSource(tmp_path / "file") as source:
        source.drop(0, len(data))
        source.drop(len(data), 1 << 20)
        assert source.read(0, len(data)) == data
