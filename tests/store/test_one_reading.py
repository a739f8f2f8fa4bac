"""A file is read once, and what was read is proven to be one state of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from theta.errors import ChangedWhileReadError
from theta.store.files.file_source import FileSource
from theta.store.files.one_reading import Reading

OLD, NEW = b"a" * 1000, b"b" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "m.bin"
    place.write_bytes(OLD)
    os.utime(place, (1_000_000_000, 1_000_000_000))
    return place


@pytest.fixture
def source(path: Path) -> Iterator[FileSource]:
    with FileSource(path) as opened:
        yield opened


def read(source: FileSource) -> Reading:
    reading = Reading(source)
    chunks, raw = reading.read(100, [300, 200])
    assert raw == OLD[100:600]
    assert [chunk.length for chunk in chunks] == [300, 200]
    assert all(chunk.holds(raw[:300] if n == 0 else raw[300:]) for n, chunk in enumerate(chunks))
    return reading


def overwrite(path: Path, at: int = 450) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(NEW[at : at + 10])


def test_a_file_that_nobody_writes_to_is_proven(source: FileSource) -> None:
    read(source).prove()


def test_a_write_meanwhile_is_found(source: FileSource, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSource, "is_settled", lambda _: True)
    reading = read(source)
    overwrite(path)
    os.utime(path, ns=(source.stat.st_atime_ns, source.stat.st_mtime_ns))
    with pytest.raises(ChangedWhileReadError):
        reading.prove()


def test_a_write_within_the_tick_of_the_one_before_is_found(
    source: FileSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the file's times as they are: what was read that early is read again."""
    monkeypatch.setattr(FileSource, "is_settled", lambda _: False)
    monkeypatch.setattr(FileSource, "was_written", lambda _: False)
    reading = read(source)
    overwrite(path)
    with pytest.raises(ChangedWhileReadError):
        reading.prove()


def test_new_times_or_a_new_name_are_no_change(source: FileSource, path: Path) -> None:
    reading = read(source)
    os.utime(path)
    reading.prove()
    other = path.with_name("other")
    other.write_bytes(NEW)
    other.replace(path)
    reading.prove()


def test_a_file_is_not_settled_right_after_it_was_written(path: Path) -> None:
    path.write_bytes(OLD)
    with FileSource(path) as source:
        assert not source.is_settled()
        seen = max(source.identity.mtime_ns, source.identity.ctime_ns)
        assert source.identity.is_racy(seen)
        assert not source.identity.is_racy(seen + 3_000_000_000)
