"""A file is read once, and what was read is proven to be one state of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from theta.errors import ChangedWhileReadError, FormatError
from theta.formats.layout import BytesSource
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


def test_passages_are_read_together_as_they_are_alone(source: FileSource, path: Path) -> None:
    content = bytes(range(250)) * 4
    path.write_bytes(content)
    passages = [(0, [10]), (100, [300, 200]), (990, [10]), (7, [])]
    for reading in (Reading(source), Reading(BytesSource(content))):
        together = reading.read_each(passages)
        assert together == [reading.read(*passage) for passage in passages]
        for (offset, lengths), (chunks, raw) in zip(passages, together, strict=True):
            assert raw == content[offset : offset + sum(lengths)]
            assert [chunk.length for chunk in chunks] == lengths
            room = memoryview(bytearray(len(raw)))
            assert reading.read(offset, lengths, room)[0] == chunks
            assert room == raw


def test_rooms_are_filled_however_few_bytes_the_system_reads(
    source: FileSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, whole = bytes(range(250)) * 4, os.preadv
    path.write_bytes(content)
    monkeypatch.setattr(os, "preadv", lambda fd, rooms, at: whole(fd, [rooms[0][:7]], at))
    room = memoryview(bytearray(100))
    source.read_into(900, room)
    assert room == content[900:]
    with pytest.raises(FormatError):
        source.read_into(901, room)
    os.truncate(path, 950)
    with pytest.raises(ChangedWhileReadError):
        source.read_into(900, room)


def overwrite(path: Path, at: int = 450) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(NEW[at : at + 10])


def test_a_file_that_nobody_writes_to_is_proven(source: FileSource) -> None:
    read(source).prove()


def test_a_write_meanwhile_is_found(source: FileSource, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSource, "is_settled", lambda _: True)
    reading = read(source)
    time.sleep(0.02)  # the clock of the file system has ticks of up to 10 ms
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
