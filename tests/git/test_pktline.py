"""Packets of git's filter protocol."""

from __future__ import annotations

import fcntl
import io
import os
import threading

import pytest

from theta.git.pktline import PktLines, widened


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes of another size are of Linux")
def test_a_file_comes_through_a_pipe_that_holds_a_megabyte() -> None:
    """A pipe of 64 KiB has git and the filter wait for each other 16 times as often."""
    reading, writing = os.pipe()
    with widened(reading):
        assert fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ) == 1 << 20
        assert os.write(writing, bytes(1 << 20)) == 1 << 20
    os.close(reading)
    os.close(writing)


def test_packets_come_out_as_they_went_in() -> None:
    content = os.urandom(3 << 20)
    reading, writing = os.pipe()

    def send() -> None:
        with os.fdopen(writing, "wb") as sink:
            PktLines(io.BytesIO(), sink).write_content([content])

    sender = threading.Thread(target=send)
    sender.start()
    assert b"".join(PktLines(widened(reading), io.BytesIO()).until_flush()) == content
    sender.join()
    os.close(reading)


def test_what_is_no_pipe_is_read_as_it_is() -> None:
    descriptor = os.open(__file__, os.O_RDONLY)
    with widened(descriptor) as reader:
        assert reader.read(3) == b'"""'
    os.close(descriptor)
