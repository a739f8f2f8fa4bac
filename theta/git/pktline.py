"""Git's pkt-line framing for its long-running filter protocol.

See gitprotocol-common(5) and the section "Long Running Filter Process" of gitattributes(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from theta.errors import ThetaError

MAX_PAYLOAD: Final = 65516
_WIDE: Final = 1 << 20
"""Bytes that a pipe holds, and that are read from it at once; Linux lets any user have such a pipe."""


def widened(descriptor: int) -> BinaryIO:
    """Return a reader of the pipe ``descriptor``, which is made to hold more.

    A whole file comes through it, and its two ends wait for each other less often.  Where the system
    has no pipes of other sizes it stays as it is.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _WIDE)
    return os.fdopen(descriptor, "rb", buffering=_WIDE, closefd=False)


class PktLines:
    """Packets read from and written to a pair of binary streams."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink

    def read(self) -> bytes | None:
        """Return the payload of the next packet; None for a flush packet.  Raises ``EOFError`` at the end."""
        head = self._source.read(4)
        if not head:
            raise EOFError
        try:
            length = int(head, 16)
        except ValueError as error:
            raise ThetaError("git sent a malformed packet") from error
        if length == 0:
            return None
        payload = self._source.read(length - 4)
        if length < 4 or len(payload) != length - 4:
            raise ThetaError("git sent a malformed packet")
        return payload

    def until_flush(self) -> Iterator[bytes]:
        """Yield all packets up to the next flush packet."""
        while (packet := self.read()) is not None:
            yield packet

    def read_keys(self) -> dict[str, str]:
        """Read ``key=value`` lines up to the next flush packet."""
        rows = (packet.decode("utf-8", "surrogateescape").rstrip("\n") for packet in self.until_flush())
        return {key: value for key, _, value in (row.partition("=") for row in rows)}

    def write_lines(self, lines: Iterable[str]) -> None:
        """Send text lines and a flush packet."""
        for line in lines:
            data = line.encode() + b"\n"
            self._sink.write(b"%04x" % (len(data) + 4) + data)
        self.flush()

    def write_content(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send ``pieces`` as packets and a flush packet."""
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), MAX_PAYLOAD):
                part = view[start : start + MAX_PAYLOAD]
                self._sink.write(b"%04x" % (len(part) + 4))
                self._sink.write(part)
        self.flush()

    def flush(self) -> None:
        """Send a flush packet."""
        self._sink.write(b"0000")
        self._sink.flush()
