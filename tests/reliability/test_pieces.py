"""Files whose reads and writes are cut: the system may always do less than it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from theta import _fs
from theta.errors import DiskError
from theta.store.files.file_source import FileSource

DATA = bytes(range(200))
MOST = 7


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call read or write at most seven bytes."""

    def cut(name: str, shorten: Callable[[Any], Any]) -> None:
        whole = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, what, *rest: whole(fd, shorten(what), *rest))

    cut("write", lambda data: memoryview(data)[:MOST])
    cut("pwrite", lambda data: memoryview(data)[:MOST])
    cut("writev", lambda views: [views[0][:MOST]])
    cut("pread", lambda length: min(length, MOST))
    monkeypatch.delattr(os, "copy_file_range", raising=False)


def test_a_file_that_is_appended_to(tmp_path: Path) -> None:
    file = _fs.AppendFile(tmp_path)
    file.write(DATA[:100], b"", DATA[100:])
    file.patch(20, b"x" * 50)
    wanted = DATA[:20] + b"x" * 50 + DATA[70:]
    assert file.read(0, 200) == wanted
    assert file.read(150, 200) == wanted[150:]
    file.publish(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == wanted


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(DATA)
    with _fs.AtomicFile(tmp_path / "file") as file, (tmp_path / "other").open("rb") as other:
        file.write(DATA)
        file.patch(10, b"y" * 20)
        file.copy(other.fileno(), 0, 200, 200)
        assert file.read(0, 400) == DATA[:10] + b"y" * 20 + DATA[30:] + DATA


def test_a_file_that_is_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with _fs.PatchedFile(tmp_path / "file") as file:
        file.patch(10, b"z" * 20)
        assert file.read(0, 200) == DATA[:10] + b"z" * 20 + DATA[30:]
        with pytest.raises(DiskError, match="shorter"):
            file.read(190, 20)


def test_a_file_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with FileSource(tmp_path / "file") as source:
        assert source.read(3, 190) == DATA[3:193]
