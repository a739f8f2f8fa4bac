"""The ``theta`` command."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

_YOUNG: Final = 50_000
"""The number of new objects that start a garbage collection: by default numba's would be visited often."""


def main() -> int:
    """Run the command line; return the exit code."""
    gc.set_threshold(_YOUNG)
    from theta import _memory
    from theta.cli.app import run

    _memory.one_heap()
    return run(sys.argv[1:], alone=True)


def script() -> NoReturn:
    """Run the command line and end this process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, _end)
    try:
        from theta.cli import start

        start.open_streams()
        start.speak_utf8()
        start.allow_workers()
        start.begin_no_threads()
        code = main()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as stop:  # from a signal; temporary files are removed by now
        code = int(stop.code or 0)
    if "mpi4py" in sys.modules:  # the other ranks end when this one takes its leave of them
        sys.exit(code)
    # Finalizing the interpreter takes a quarter of a second with numba; mypy skips it too.
    os._exit(code)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    script()
